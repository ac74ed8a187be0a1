package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"atoll/bundle"
	"atoll/images"
)

func TestFailureText(t *testing.T) {
	gone := func(i int, names ...string) *images.FetchError {
		digest := v1.Hash{Algorithm: "sha256", Hex: fmt.Sprint(i)}
		return &images.FetchError{Names: names, Host: "ghcr.io", Err: &images.GoneError{Name: names[0], Digest: digest, Host: "ghcr.io"}}
	}
	var sharing []string
	var many, causes []*images.FetchError
	for i := range 300 {
		name := fmt.Sprintf("image a/%d", i)
		sharing = append(sharing, name)
		many = append(many, gone(i, name), gone(1000+i, name)) // two blobs of each
		causes = append(causes, &images.FetchError{Names: []string{name}, Host: fmt.Sprintf("host%d", i), Err: errors.New(name + " broke")})
	}
	listed := func() string {
		out := "300 are incomplete: ghcr.io no longer has it\n"
		for i := range 10 {
			out += fmt.Sprintf("  image a/%d\n", i)
		}
		return out + "  and 290 more\n"
	}()
	hostile := &transport.Error{StatusCode: http.StatusForbidden, Errors: []transport.Diagnostic{{Code: "DENIED", Message: "no\n  image x\x1b[2J" + strings.Repeat("y", 5000)}}}
	for _, tc := range []struct {
		name string
		in   []*images.FetchError
		want string
	}{
		{"one", []*images.FetchError{gone(1, "image x")}, "image x: ghcr.io no longer has sha256:1\n"},
		{"blobs of one", []*images.FetchError{gone(1, "image x"), gone(2, "image x")}, "image x: ghcr.io no longer has sha256:1\n"},
		{"one cause of many", many, listed},
		{"one blob of many", []*images.FetchError{gone(1, sharing...)}, listed},
		{"unknown", []*images.FetchError{{Err: errors.New("a")}, {Err: errors.New("b")}, {Err: errors.New("a")}}, "a\nb\n"},
		{"corrupt", []*images.FetchError{
			{Names: []string{"x"}, Host: "h", Err: &bundle.CorruptError{Name: "x from h"}},
			{Names: []string{"y"}, Host: "h", Err: &bundle.CorruptError{Name: "y from h"}},
		}, "2 are incomplete: h sends it corrupt\n  x\n  y\n"},
	} {
		if got := failureText(tc.in); got != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
	got := failureText(causes)
	if lines := strings.Count(got, "\n"); lines != maxListed+1 || !strings.HasSuffix(got, "image a/9 broke\nand 290 more\n") {
		t.Errorf("many causes: %d lines:\n%s", lines, got)
	}
	for _, names := range [][]string{{"x"}, {"x", "y"}} {
		got := failureText([]*images.FetchError{{Names: names, Host: "h", Err: fmt.Errorf("x: %w", hostile)}})
		if strings.Contains(got, "\x1b") || strings.Contains(got, "\n  image x") || len(got) > 2*images.MaxLine {
			t.Errorf("what a host says is not tamed: %q", got)
		}
	}
}
