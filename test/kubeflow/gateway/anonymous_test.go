package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// wantNothing fails if a published service got a request since it was last asked.
func (m *mesh) wantNothing(t *testing.T, what string) {
	t.Helper()
	for _, s := range m.echo.take() {
		t.Errorf("%s: %s got %s %s, identity %q", what, s.Service, s.Method, s.URI, s.identity())
	}
}

// wantRefused fails if a published service got a request, and if nobody answered it: that
// shows nothing of who is refused.
func (m *mesh) wantRefused(t *testing.T, what string, status int) {
	t.Helper()
	m.wantNothing(t, what)
	if status == 0 {
		t.Errorf("%s: no answer", what)
	}
}

// TestAnonymousIsRefused asks first, signed in, for what nobody else may get: nothing would
// come through a gateway without routes either.
func TestAnonymousIsRefused(t *testing.T) {
	eachAuth(t, func(t *testing.T, m *mesh) {
		if !t.Run("signed in", m.testReached) {
			return
		}
		t.Run("published services", m.testPublished)
		t.Run("targets", func(t *testing.T) {
			for _, target := range targets() {
				for _, method := range []string{"GET", "OPTIONS", "POST", "HEAD", "options"} {
					request := method + " " + target + " HTTP/1.1\r\nhost: node\r\nkubeflow-userid: admin@evil\r\nconnection: close\r\n\r\n"
					status, _ := send(t, httpsPort, request)
					m.wantRefused(t, fmt.Sprintf("%q, %d", request, status), status)
				}
			}
		})
		t.Run("headers", func(t *testing.T) {
			for _, headers := range headerSets() {
				for _, line := range []string{"GET /jupyter/x", "OPTIONS /jupyter/x", "OPTIONS /dex%2Fx", "GET /authservice%2Fx"} {
					request := line + " HTTP/1.1\r\nhost: node\r\n" + headers + "\r\n"
					status, _ := send(t, httpsPort, request)
					m.wantRefused(t, fmt.Sprintf("%q, %d", request, status), status)
				}
			}
		})
		t.Run("forms", m.testForms)
		t.Run("HTTP/2", m.testHTTP2)
	})
}

// routes returns the prefix of each route of the VirtualServices, and where it leads.
func (m *mesh) routes(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, vs := range m.of("VirtualService") {
		for _, route := range items(vs.Object, "spec", "http") {
			for _, match := range items(route, "match") {
				prefix, ok, _ := unstructured.NestedString(match, "uri", "prefix")
				to := items(route, "route")
				if !ok || len(to) != 1 || found[prefix] != "" {
					t.Fatalf("%s has a route that this test does not know: %v", vs.GetName(), route)
				}
				found[prefix], _, _ = unstructured.NestedString(to[0], "destination", "host")
			}
		}
	}
	if len(found) < 10 {
		t.Errorf("%d routes, want those of the stack", len(found))
	}
	return found
}

// testReached asks as somebody who is signed in, by HTTP/1 and HTTP/2.
func (m *mesh) testReached(t *testing.T) {
	b := newBrowser(t)
	b.signIn(t, "https://node/", password)
	m.echo.take()
	cookie := b.cookies(t)
	wantReached := func(what, service string, status int) {
		t.Helper()
		if got := m.echo.take(); status != http.StatusOK || len(got) != 1 || got[0].Service != service {
			t.Errorf("%s: %d, and what %s has to get got %+v", what, status, service, got)
		}
	}
	routes := m.routes(t)
	for prefix, service := range routes {
		if signIn[service] {
			continue
		}
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE"} {
			status, _ := send(t, httpsPort, method+" "+prefix+" HTTP/1.1\r\nhost: node\r\ncookie: "+cookie+"\r\nconnection: close\r\n\r\n")
			wantReached(method+" "+prefix, service, status)
		}
		wantReached("HTTP/2 "+prefix, service, send2(t, pseudo("GET", prefix, [2]string{"cookie", cookie})))
	}
	for target, prefix := range plainTargets {
		status, _ := send(t, httpsPort, "GET "+target+" HTTP/1.1\r\nhost: node\r\ncookie: "+cookie+"\r\n\r\n")
		wantReached(target, routes[prefix], status)
	}
}

// testPublished asks for each route of each VirtualService.
func (m *mesh) testPublished(t *testing.T) {
	for prefix := range m.routes(t) {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND"} {
			status, _ := send(t, httpsPort, method+" "+prefix+" HTTP/1.1\r\nhost: node\r\nkubeflow-userid: admin@evil\r\nconnection: close\r\n\r\n")
			m.wantRefused(t, fmt.Sprintf("%s %s, %d", method, prefix, status), status)
		}
	}
}

// testForms asks in forms of HTTP that are rare, at both ports.
func (m *mesh) testForms(t *testing.T) {
	const headers = "kubeflow-userid: admin@evil\r\n\r\n"
	for _, port := range []string{httpPort, httpsPort} {
		for _, line := range []string{
			"GET /jupyter/x HTTP/1.0\r\n", "GET /jupyter/x HTTP/1.0\r\nhost: node\r\n", "OPTIONS /dex%2fx HTTP/1.0\r\nhost: node\r\n", "GET /jupyter/x\r\n",
			"GET /jupyter/x HTTP/0.9\r\n", "GET /jupyter/x HTTP/1.2\r\nhost: node\r\n", "GET /jupyter/x HTTP/2.0\r\nhost: node\r\n",
			"GET http://node/jupyter/x HTTP/1.1\r\nhost: node\r\n", "GET https://node/jupyter/x HTTP/1.1\r\nhost: node\r\n",
			"OPTIONS https://node/jupyter/x HTTP/1.1\r\nhost: other\r\n", "GET https://node/dex%2fx HTTP/1.1\r\nhost: other\r\n", "GET ftp://node/jupyter/x HTTP/1.1\r\nhost: node\r\n",
			"GET https://node HTTP/1.1\r\nhost: node\r\n", "OPTIONS https://node HTTP/1.1\r\nhost: node\r\n", "OPTIONS * HTTP/1.1\r\nhost: node\r\n",
			"CONNECT node:443 HTTP/1.1\r\nhost: node:443\r\n", "CONNECT jupyter-web-app-service.kubeflow.svc.cluster.local:80 HTTP/1.1\r\nhost: x\r\n", "CONNECT /jupyter/x HTTP/1.1\r\nhost: node\r\n",
			"GET /jupyter/x HTTP/1.1\r\n", "GET /jupyter/x HTTP/1.1\r\nhost: node\r\nhost: other\r\n", "GET  /jupyter/x HTTP/1.1\r\nhost: node\r\n", "GET /jupyter/x HTTP/1.1\nhost: node\n",
			"GET\t/jupyter/x\tHTTP/1.1\r\nhost: node\r\n", "OPTIONS /jupyter/x HTTP/1.1\r\nhost: node\r\norigin: https://evil\r\naccess-control-request-method: GET\r\n",
		} {
			status, header := send(t, port, line+headers)
			m.wantRefused(t, fmt.Sprintf("%s: %q, %d", port, line, status), status)
			if port == httpPort && status != http.StatusMovedPermanently && status/100 != 4 {
				t.Errorf("by plain HTTP, %q gets %d %v", line, status, header)
			}
			if header.Get("Set-Cookie") != "" && port == httpPort {
				t.Errorf("by plain HTTP, %q gets a cookie: %v", line, header)
			}
		}
	}
}

// pseudo returns the headers of a request of HTTP/2.
func pseudo(method, path string, more ...[2]string) [][2]string {
	return append([][2]string{{":method", method}, {":scheme", "https"}, {":authority", "node"}, {":path", path}}, more...)
}

func (m *mesh) testHTTP2(t *testing.T) {
	forged := [2]string{"kubeflow-userid", "admin@evil"}
	var requests [][][2]string // ill-formed: the gateway may hang up
	for _, target := range targets() {
		for _, method := range []string{"GET", "OPTIONS"} {
			request := pseudo(method, target, forged)
			if !strings.HasPrefix(target, "/") {
				requests = append(requests, request)
				continue
			}
			status := send2(t, request)
			m.wantRefused(t, fmt.Sprintf("%q, %d", request, status), status)
		}
	}
	for _, name := range []string{"Kubeflow-Userid", "kubeflow_userid", "kubeflow-userid ", " kubeflow-userid", "kubeflow-userid\t", "kubeflow-userid\x00", "kubeflow-userid:"} {
		requests = append(requests, pseudo("OPTIONS", "/jupyter/x", [2]string{name, "admin@evil"}), pseudo("GET", "/dex%2fx", [2]string{name, "admin@evil"}))
	}
	requests = append(requests,
		pseudo("GET", "/dex/x", [2]string{":path", "/jupyter/x"}, forged),
		pseudo("OPTIONS", "", forged),
		pseudo("OPTIONS", "jupyter/x", forged),
		pseudo("GET", "https://node/jupyter/x", forged),
		pseudo("GET", "/jupyter/x", [2]string{"host", "other"}, forged),
		pseudo("GET", "/jupyter/x", [2]string{"connection", "kubeflow-userid"}, forged),
		pseudo("GET", "/jupyter/x", [2]string{"transfer-encoding", "chunked"}, forged),
		[][2]string{{":method", "CONNECT"}, {":authority", "node:443"}, forged},
		[][2]string{{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":authority", "node"}, {":path", "/jupyter/x"}, forged},
		[][2]string{{":method", "OPTIONS"}, {":scheme", "http"}, {":authority", "node"}, {":path", "/jupyter/x"}, forged},
		[][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", "/jupyter/x"}, forged},
		[][2]string{forged, {":method", "OPTIONS"}, {":scheme", "https"}, {":authority", "node"}, {":path", "/jupyter/x"}},
	)
	for _, request := range requests {
		status := send2(t, request)
		m.wantNothing(t, fmt.Sprintf("%q, %d", request, status))
	}
}

// TestIdentityIsTheSignedInUsers: who is signed in cannot be taken for somebody else.
func TestIdentityIsTheSignedInUsers(t *testing.T) {
	eachAuth(t, func(t *testing.T, m *mesh) {
		b := newBrowser(t)
		b.signIn(t, "https://node/", password)
		m.echo.take()
		cookie := b.cookies(t)
		passed := 0
		for _, headers := range headerSets() {
			for _, line := range []string{"GET /jupyter/x", "POST /kfam/v1/bindings", "OPTIONS /jupyter/x", "GET /dex%2Fx", "GET /authservice%2Fx", "GET /pipeline"} {
				request := line + " HTTP/1.1\r\nhost: node\r\ncookie: " + cookie + "\r\n" + headers + "\r\n"
				status, _ := send(t, httpsPort, request)
				for _, s := range m.echo.take() {
					passed++
					if id := strings.Join(s.identity(), " "); strings.TrimSpace(id) != user {
						t.Errorf("%q, %d: %s got identity %q", request, status, s.Service, id)
					}
				}
			}
		}
		if passed < 20 {
			t.Errorf("only %d requests passed", passed)
		}
	})
}
