package checks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// mark is what checks/mesh.yaml looks for on the wire.
const mark = "a-text-that-nobody-else-sends"

// traffic is what the lab's probe saw of TCP from one address to another.
type traffic struct {
	From, To netip.Addr
	counts
}

// counts are of segments that carry data, of those that begin with TLS's ClientHello, and of
// those that have the mark in plain text.
type counts struct{ Data, Hellos, Marks int }

// TestMesh: sidecars are injected and ready, what two pods of the mesh say to each other is
// mutual TLS on the wire, and policies refuse what they should.
func TestMesh(t *testing.T) {
	k := needCluster(t)
	k.remove(t, "check-mesh", "check-outside")
	k.apply(t, "mesh.yaml")
	k.ready(t, "check-mesh")
	k.ready(t, "check-outside")

	address := map[string]netip.Addr{}
	for _, name := range []string{"check-mesh/server", "check-mesh/friend", "check-mesh/other", "check-outside/server", "check-outside/stranger"} {
		namespace, pod, _ := strings.Cut(name, "/")
		var p corev1.Pod
		k.get(t, &p, "pod", "--namespace", namespace, pod)
		address[name] = netip.MustParseAddr(p.Status.PodIP)
		if injected := sidecarReady(&p); injected != (namespace == "check-mesh") {
			t.Errorf("pod %s: a ready sidecar: %v", name, injected)
		}
	}
	meshed, plain := "http://server.check-mesh/", "http://server.check-outside/"

	// Refused and let in, by who asks and for what. A sidecar that just started may not know
	// everything yet.
	for _, c := range []struct {
		pod, path string
		status    int
	}{
		{"check-mesh/friend", "open", http.StatusOK},
		{"check-mesh/friend", "friends", http.StatusOK},
		{"check-mesh/friend", "nobody", http.StatusForbidden},
		{"check-mesh/other", "open", http.StatusOK},
		{"check-mesh/other", "friends", http.StatusForbidden},
		{"check-outside/stranger", "open", http.StatusOK},
		{"check-outside/stranger", "friends", http.StatusForbidden},
	} {
		eventually(t, c.pod+" asks for "+c.path, func() error {
			namespace, pod, _ := strings.Cut(c.pod, "/")
			a, err := k.ask(t, namespace, pod, meshed+c.path)
			if err == nil && a.Status != c.status {
				err = fmt.Errorf("the answer is %d, want %d: %s", a.Status, c.status, a.Body)
			}
			return err
		})
	}

	// Who the server is told that it talks to.
	a, err := k.ask(t, "check-mesh", "friend", meshed+"open?"+mark)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(a.Body, "URI=spiffe://cluster.local/ns/check-mesh/sa/friend") {
		t.Errorf("the server was not shown the certificate of who asks: %s", a.Body)
	}
	// A stranger's talk, for which the same watcher must see the text: else it saw nothing.
	if _, err := k.ask(t, "check-outside", "stranger", plain+"open?"+mark); err != nil {
		t.Fatal(err)
	}
	eventually(t, "watching the wire", func() error {
		a, err := k.ask(t, "check-outside", "watcher", "http://127.0.0.1:18080/seen")
		if err != nil {
			return err
		}
		var seen []traffic
		if err := json.Unmarshal([]byte(a.Body), &seen); err != nil {
			return err
		}
		control := between(seen, address["check-outside/stranger"], address["check-outside/server"])
		secret := between(seen, address["check-mesh/friend"], address["check-mesh/server"])
		if control.Marks == 0 || secret.Data == 0 {
			return fmt.Errorf("saw %+v outside of the mesh, %+v within", control, secret)
		}
		t.Logf("seen outside of the mesh: %+v; within: %+v", control, secret)
		if secret.Hellos == 0 || secret.Marks > 0 || control.Hellos > 0 {
			t.Errorf("within the mesh: %+v, want TLS and no plain text; outside: %+v, want plain text", secret, control)
		}
		return nil
	})

	k.apply(t, "strict.yaml")
	eventually(t, "a pod without a sidecar is refused", func() error {
		if a, err := k.ask(t, "check-outside", "stranger", meshed+"open"); err == nil {
			return fmt.Errorf("it is answered: %d %s", a.Status, a.Body)
		}
		return nil
	})
	if a, err := k.ask(t, "check-mesh", "friend", meshed+"open"); err != nil || a.Status != http.StatusOK {
		t.Errorf("a pod of the mesh, where only mutual TLS is let in: %d, %v", a.Status, err)
	}
}

// sidecarReady reports whether a pod has Istio's proxy, and that is ready. It is an init
// container that goes on, or an ordinary one, as the injector was told.
func sidecarReady(p *corev1.Pod) bool {
	for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if s.Name == "istio-proxy" {
			return s.Ready
		}
	}
	return false
}

// between adds up both directions.
func between(seen []traffic, a, b netip.Addr) (sum counts) {
	for _, t := range seen {
		if t.From == a && t.To == b || t.From == b && t.To == a {
			sum.Data += t.Data
			sum.Hellos += t.Hellos
			sum.Marks += t.Marks
		}
	}
	return sum
}
