package main

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll/test/labimages/internal/kube"
)

// jobs is an API server that knows Jobs, and ends them the way it is told to.
type jobs struct {
	t      *testing.T
	end    string // the condition that the Job gets
	polls  int
	stored map[string]any
}

func (j *jobs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const path = "/apis/batch/v1/namespaces/lab/jobs"
	switch {
	case r.Method == http.MethodPost && r.URL.Path == path && j.stored == nil:
		if err := json.NewDecoder(r.Body).Decode(&j.stored); err != nil {
			j.t.Error(err)
		}
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, "{}")
	case r.Method == http.MethodGet && r.URL.Path == path+"/hello" && j.stored != nil:
		j.polls++
		if j.polls < 3 {
			io.WriteString(w, "{}")
			return
		}
		io.WriteString(w, `{"status":{"conditions":[{"type":"SuccessCriteriaMet","status":"True"},{"type":"`+j.end+`","status":"True","message":"so it is"}]}}`)
	default:
		http.Error(w, "none", http.StatusNotFound)
	}
}

func TestLaunch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runtime.yaml")
	if err := os.WriteFile(path, []byte("job:\n  name: hello\n  image: hello-lab:1.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	for end, want := range map[string]string{"Complete": "", "Failed": "job hello failed: so it is"} {
		j := &jobs{t: t, end: end}
		srv := httptest.NewTLSServer(j)
		dir := t.TempDir()
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
		for name, data := range map[string]string{"ca.crt": string(ca), "namespace": "lab", "token": "t"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		client, err := kube.New(srv.URL, dir)
		if err != nil {
			t.Fatal(err)
		}
		err = launch(t.Context(), client, c, time.Millisecond)
		srv.Close()
		if got := errText(err); got != want {
			t.Errorf("%s: got %q, want %q", end, got, want)
		}
		if data, _ := json.Marshal(j.stored); !strings.Contains(string(data), `"image":"hello-lab:1.0"`) {
			t.Errorf("job is %s", data)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
