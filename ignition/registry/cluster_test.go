package registry

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// apiServer answers as Kubernetes's does, from a list of pods.
type apiServer struct {
	t *testing.T

	mu    sync.Mutex
	pods  []core.Pod
	lists int
	fail  bool
}

func (a *apiServer) set(pods ...core.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods = pods
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case a.fail:
		http.Error(w, "{}", http.StatusInternalServerError)
	case req.Method == http.MethodGet && req.URL.Path == "/api/v1/pods":
		a.lists++
		if req.URL.Query().Has("resourceVersion") {
			a.t.Error("an answer from a cache would do")
		}
		list := core.PodList{TypeMeta: meta.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
		for _, p := range a.pods {
			if "status.podIP="+p.Status.PodIP == req.URL.Query().Get("fieldSelector") {
				list.Items = append(list.Items, p)
			}
		}
		json.NewEncoder(w).Encode(list)
	case req.Method == http.MethodPost && req.URL.Path == "/apis/authentication.k8s.io/v1/tokenreviews":
		var review authentication.TokenReview
		if err := json.NewDecoder(req.Body).Decode(&review); err != nil {
			a.t.Error(err)
		}
		if user, ok := map[string]string{"a.sa.sig": "system:serviceaccount:team:default", "a.user.sig": "admin", "a.node.sig": "system:node:x", "a.odd.sig": "system:serviceaccount::x"}[review.Spec.Token]; ok {
			review.Status = authentication.TokenReviewStatus{Authenticated: true, User: authentication.UserInfo{Username: user}}
		}
		if review.Spec.Token == "a.claims.sig" { // says who it is, and is not believed
			review.Status.User.Username = "system:serviceaccount:team:default"
		}
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(review)
	default:
		a.t.Errorf("asked for %s %s, which the account may not", req.Method, req.URL)
		http.Error(w, "{}", http.StatusForbidden)
	}
}

func newAPIServer(t *testing.T) (*apiServer, *cluster) {
	t.Helper()
	api := &apiServer{t: t}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}, QPS: 1000, Burst: 1000})
	if err != nil {
		t.Fatal(err)
	}
	c := NewCluster(client).(*cluster)
	c.wait = 0
	return api, c
}

func pod(ns, name, ip string, phase core.PodPhase, changes ...func(*core.Pod)) core.Pod {
	p := core.Pod{ObjectMeta: meta.ObjectMeta{Namespace: ns, Name: name}, Status: core.PodStatus{Phase: phase, PodIP: ip}}
	for _, change := range changes {
		change(&p)
	}
	return p
}

func onHost(p *core.Pod) { p.Spec.HostNetwork = true }

func deleted(p *core.Pod) { p.DeletionTimestamp = &meta.Time{Time: time.Now()} }

func running(p *core.Pod) {
	p.Status.ContainerStatuses = []core.ContainerStatus{{State: core.ContainerState{Running: &core.ContainerStateRunning{}}}}
}

func TestPodOfAnAddress(t *testing.T) {
	api, c := newAPIServer(t)
	const ip = "10.42.0.7"
	for _, tc := range []struct {
		name string
		pods []core.Pod
		want Pod
		err  error
	}{
		{"none", nil, Pod{}, ErrUnknown},
		{"another", []core.Pod{pod("a", "x", "10.42.0.8", core.PodRunning)}, Pod{}, ErrUnknown},
		{"running", []core.Pod{pod("a", "x", ip, core.PodRunning)}, Pod{"a", "x"}, nil},
		{"in its init containers", []core.Pod{pod("a", "x", ip, core.PodPending)}, Pod{"a", "x"}, nil},
		{"on the host's network", []core.Pod{pod("a", "x", ip, core.PodRunning, onHost)}, Pod{}, ErrHostNetwork},
		{"finished", []core.Pod{pod("a", "x", ip, core.PodSucceeded)}, Pod{}, ErrUnknown},
		{"failed", []core.Pod{pod("a", "x", ip, core.PodFailed)}, Pod{}, ErrUnknown},
		{"the address is another's now", []core.Pod{pod("a", "x", ip, core.PodSucceeded), pod("b", "y", ip, core.PodRunning)}, Pod{"b", "y"}, nil},
		{"deleted, and over", []core.Pod{pod("a", "x", ip, core.PodRunning, deleted), pod("b", "y", ip, core.PodRunning)}, Pod{"b", "y"}, nil},
		{"deleted, and still running", []core.Pod{pod("a", "x", ip, core.PodRunning, deleted, running)}, Pod{"a", "x"}, nil},
		{"two at once", []core.Pod{pod("a", "x", ip, core.PodRunning), pod("b", "y", ip, core.PodRunning)}, Pod{}, ErrUnknown},
		{"unknown phase", []core.Pod{pod("a", "x", ip, core.PodUnknown)}, Pod{}, ErrUnknown},
	} {
		api.set(tc.pods...)
		got, err := c.Pod(t.Context(), netip.MustParseAddr(ip))
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, %v, want %v, %v", tc.name, got, err, tc.want, tc.err)
		}
	}
	api.set(pod("a", "x", "127.0.0.1", core.PodRunning))
	if got, err := c.Pod(t.Context(), netip.MustParseAddr("127.0.0.1")); !errors.Is(err, ErrHostNetwork) {
		t.Errorf("the node's own address: %v, %v", got, err)
	}
	api.fail = true
	if got, err := c.Pod(t.Context(), netip.MustParseAddr(ip)); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("the API server fails: %v, %v", got, err)
	}
}

// A pod runs before the API server knows its address.
func TestPodIsWaitedFor(t *testing.T) {
	api, c := newAPIServer(t)
	c.wait = time.Hour
	found := make(chan Pod)
	go func() {
		p, err := c.Pod(t.Context(), netip.MustParseAddr("10.42.0.7"))
		if err != nil {
			t.Error(err)
		}
		found <- p
	}()
	for asked := false; !asked; {
		api.mu.Lock()
		asked = api.lists > 0
		api.mu.Unlock()
	}
	api.set(pod("a", "x", "10.42.0.7", core.PodRunning))
	if got := <-found; got != (Pod{"a", "x"}) {
		t.Errorf("got %v", got)
	}
}

func TestServiceAccountOfAToken(t *testing.T) {
	_, c := newAPIServer(t)
	for token, want := range map[string]ServiceAccount{
		"a.sa.sig": {"team", "default"}, "a.user.sig": {}, "a.node.sig": {}, "a.odd.sig": {}, "a.claims.sig": {}, "a.wrong.sig": {},
		"": {}, "password": {}, "a.b": {}, "a.b.c\n": {}, "a." + strings.Repeat("b", maxToken) + ".c": {},
	} {
		got, err := c.ServiceAccount(t.Context(), token)
		if got != want || (want == ServiceAccount{}) != errors.Is(err, ErrUnknown) {
			t.Errorf("%.20q: %v, %v, want %v", token, got, err, want)
		}
	}
}
