package gateway

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// serveKube answers istiod in the place of an API server and returns a kubeconfig. It
// lists objects, by resource; nothing ever changes, and nothing can be written. Istio's own
// objects are not asked for here: istiod reads them from files.
func serveKube(t *testing.T, dir string, objects map[string][]*unstructured.Unstructured) (kubeconfig string) {
	t.Helper()
	listener, err := net.Listen("tcp", "10.0.0.1:6443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := map[string]any{}
		query := r.URL.Query()
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		switch {
		case r.URL.Path == "/version":
			answer["major"], answer["minor"], answer["gitVersion"] = "1", "34", "v1.34.4"
		case r.Method != http.MethodGet || query.Get("sendInitialEvents") != "":
			// Of a watch that begins with a list a client is told so that it asks for the two.
			w.WriteHeader(http.StatusUnprocessableEntity)
			answer = map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422}
		case query.Get("watch") != "":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		default:
			list := []any{}
			for _, o := range objects[parts[len(parts)-1]] {
				if len(parts) < 3 || parts[len(parts)-3] != "namespaces" || parts[len(parts)-2] == o.GetNamespace() {
					list = append(list, o.Object)
				}
			}
			if strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList") {
				answer["kind"], answer["apiVersion"] = "PartialObjectMetadataList", "meta.k8s.io/v1"
			}
			answer["metadata"], answer["items"] = map[string]any{"resourceVersion": "1"}, list
		}
		json.NewEncoder(w).Encode(answer)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	kubeconfig = filepath.Join(dir, "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"lab",
"clusters":[{"name":"lab","cluster":{"server":"http://10.0.0.1:6443"}}],
"users":[{"name":"lab","user":{}}],"contexts":[{"name":"lab","context":{"cluster":"lab","user":"lab"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}
