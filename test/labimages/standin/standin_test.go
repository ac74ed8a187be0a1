package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAnswer(t *testing.T) {
	server := httptest.NewServer(page{name: "Kubeflow's central dashboard", signOut: "/oauth2/sign_out"})
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/a?b=<c>", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Kubeflow-Userid", "user@example.com")
	req.Header.Set("Kubeflow-Groups", "<script>")
	req.Header.Set("Cookie", "session=abc123")
	req.Header.Set("Authorization", "Bearer xyz789")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body strings.Builder
	if err := resp.Write(&body); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"X-Stand-In: Kubeflow's central dashboard\r\n",
		"a stand-in for Kubeflow&#39;s central dashboard",
		"POST /a?b=&lt;c&gt;", "kubeflow-userid: user@example.com\n", "kubeflow-groups: &lt;script&gt;\n",
		"cookie: (14 bytes)\n", "authorization: (13 bytes)\n", `href="/oauth2/sign_out"`,
	} {
		if !strings.Contains(strings.ToLower(body.String()), strings.ToLower(want)) {
			t.Errorf("answer lacks %q:\n%s", want, body.String())
		}
	}
	for _, secret := range []string{"abc123", "xyz789", "<script>"} {
		if strings.Contains(body.String(), secret) {
			t.Errorf("answer has %q:\n%s", secret, body.String())
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"name"}, {"name", "no address"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("run(%q) succeeded", args)
		}
	}
}
