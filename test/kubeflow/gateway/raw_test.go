package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// answerTime is what the gateway may take to answer, or to hang up.
const answerTime = 30 * time.Second

// connect opens a connection to a port of the gateway, and what of TLS that port has.
func connect(t *testing.T, port, protocol string) net.Conn {
	t.Helper()
	var conn net.Conn
	var err error
	if port == httpsPort {
		conn, err = tls.Dial("tcp", port, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	} else {
		conn, err = net.Dial("tcp", port)
	}
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(answerTime))
	return conn
}

// send writes a request of HTTP/1 just so and returns the answer's status, or 0 if the
// gateway hangs up.
func send(t *testing.T, port, request string) (status int, header http.Header) {
	t.Helper()
	conn := connect(t, port, "http/1.1")
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, nil
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: no answer in %s", request, answerTime)
		}
		return 0, nil
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header
}

// send2 writes a request of HTTP/2 of just these headers and returns the answer's status, or
// 0 if the gateway ends the stream or the connection instead.
func send2(t *testing.T, headers [][2]string) (status int) {
	t.Helper()
	conn := connect(t, httpsPort, "h2")
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range headers {
		encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	for {
		frame, err := framer.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: no answer in %s", headers, answerTime)
		}
		if err != nil {
			return 0
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status, err := strconv.Atoi(frame.PseudoValue("status"))
			if err != nil {
				t.Errorf("%q: status %q", headers, frame.PseudoValue("status"))
			}
			return status
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0
		}
	}
}

// unsigned is a token that Dex has not made.
var unsigned = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." +
	base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"http://dex.auth.svc.cluster.local:5556/dex","aud":"kubeflow-oidc-authservice","sub":"x","email":"admin@evil","groups":["admin"],"exp":99999999999}`)) + "."

// headerSets are what somebody may send to be taken for somebody else.
func headerSets() []string {
	sets := []string{""}
	for _, name := range []string{"kubeflow-userid", "Kubeflow-UserID", "KUBEFLOW-USERID", "kubeflow_userid", "Kubeflow_Userid", "kubeflow-groups", "KUBEFLOW_GROUPS",
		"kubeflow-userid ", "kubeflow-userid\t", "\tkubeflow-userid", "kubeflow-userid\x00", "kubeflow-userid\x0b"} {
		sets = append(sets, name+": admin@evil\r\n")
	}
	return append(sets,
		"kubeflow-userid: admin@evil\r\nkubeflow-userid: other@evil\r\nkubeflow_userid: third@evil\r\n",
		"x: y\r\n kubeflow-userid: admin@evil\r\n",
		"kubeflow-userid: admin@evil\r\nconnection: kubeflow-userid, kubeflow-groups\r\n",
		"kubeflow-userid: admin@evil\r\nconnection: authorization, cookie\r\n",
		"kubeflow-userid:\r\nkubeflow-groups:\r\n",
		"kubeflow-userid: admin@evil\r\nauthorization: Bearer x\r\n",
		"kubeflow-userid: admin@evil\r\nauthorization: Bearer "+unsigned+"\r\n",
		"kubeflow-userid: admin@evil\r\nauthorization: Bearer "+unsigned+"c2lnbmVk\r\n",
		"kubeflow-userid: admin@evil\r\nauthorization:\r\n",
		"kubeflow-userid: admin@evil\r\nauthorization: Basic YWRtaW46YWRtaW4=\r\n",
		"kubeflow-userid: admin@evil\r\nx-auth-token: x\r\ncookie: authservice_session=x; oauth2_proxy_kubeflow=x\r\n",
		"kubeflow-userid: admin@evil\r\nx-forwarded-proto: https\r\nx-envoy-internal: true\r\nx-envoy-original-path: /dex/\r\nx-original-url: /dex/\r\nx-forwarded-uri: /dex/\r\n",
		"kubeflow-userid: admin@evil\r\nx-http-method-override: GET\r\nx-auth-request-email: admin@evil\r\n",
		"kubeflow-userid: admin@evil\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
		"kubeflow-userid: admin@evil\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"kubeflow-userid: admin@evil\r\nexpect: 100-continue\r\n",
		"kubeflow-userid: admin@evil\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n",
		"host: other\r\nkubeflow-userid: admin@evil\r\n",
	)
}

// plainTargets are those of targets that a service gets, by the prefixes of their routes.
var plainTargets = map[string]string{
	"/": "/", "/index.html": "/", "/jupyter/x": "/jupyter/", "/kfam/v1/bindings": "/kfam/", "/pipeline/apis/v2beta1/runs": "/pipeline",
	"/ml_metadata.MetadataStoreService/GetArtifacts": "/ml_metadata", "/?/dex/": "/",
}

// targets are paths that need a sign-in, spelled so that they may look like those that do
// not, and the other way round.
func targets() []string {
	list := append(slices.Sorted(maps.Keys(plainTargets)), "*", "x", "?", "/#/dex/")
	for _, free := range []string{"dex", "authservice", "oauth2"} {
		for _, form := range []string{"/%s", "/%s%%2Fx", "/%s%%2fx", "/%s%%252Fx", "/%s%%25252Fx", "//%s/x", "///%s/x", "/%%2f%s/x", "/./%s%%2Fx", "/%s;/x", "/%s%%3B/x", "/%s?/x", "/%s%%3F/x", "/%s%%23/x",
			"/%s/../jupyter/x", "/%s/..%%2fjupyter/x", "/%s/..%%2Fjupyter/x", "/%s/%%2e%%2e/jupyter/x", "/%s/%%2E%%2E/jupyter/x", "/%s/%%2e%%2e%%2fjupyter/x", "/%s/.%%2e/jupyter/x",
			"/%s/%%252e%%252e/jupyter/x", "/%s/..;/jupyter/x", "/%s/..%%3b/jupyter/x", "/%s/..%%5cjupyter/x", "/%s/..\\jupyter\\x", "/%s\\x", "/%s%%5Cx", "/%s/..%%00/jupyter/x", "/%s%%00/x",
			"/%s/./../jupyter/x", "/%s//../jupyter/x", "/%s/x/../../jupyter/x", "/%s%%2F..%%2Fjupyter%%2Fx", "/%s%%2F../jupyter/x",
			"/jupyter/..%%2f%s/x", "/jupyter/..%%2F%s%%2Fx", "/jupyter/%%2e%%2e/%s%%2fx", "/jupyter;/%s/x", "/jupyter/..;/%s/x", "/x/../%s%%2fx",
			"/%s%%c0%%af", "/%s%%u002fx", "/%s%%2", "/%s%%", "/%s%%zz/x"} {
			list = append(list, fmt.Sprintf(form, free))
		}
		list = append(list, "/"+string(free[0]-32)+free[1:]+"/x", fmt.Sprintf("/%%%x%s/../jupyter/x", free[0], free[1:]), fmt.Sprintf("/%%%x%s%%2fx", free[0], free[1:]), "/"+free+"r/x", "/"+free+"%09/x")
	}
	return list
}
