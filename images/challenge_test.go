package images

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"atoll/bundle/bounds"
)

func TestChallenges(t *testing.T) {
	for _, tc := range []struct {
		lines []string
		want  string
	}{
		{nil, ""},
		{[]string{`Bearer realm="https://a/t",service="lab, inc"`}, `bearer{realm=https://a/t service=lab, inc} `},
		{[]string{`Basic realm="a, b", Bearer realm="r"`}, `basic{realm=a, b} bearer{realm=r} `},
		{[]string{"Negotiate", `bEARER Realm = r ,scope="x"`}, `negotiate{} bearer{realm=r scope=x} `},
		{[]string{`Negotiate YII+a/b==, Basic realm=x`}, `negotiate{} basic{realm=x} `},
		{[]string{`Negotiate abc, Basic`}, `negotiate{} basic{} `},
		{[]string{`Bearer realm="a \"b\" \\",x=1,`}, `bearer{realm=a "b" \ x=1} `},
		{[]string{`Bearer realm="never ends`}, `bearer{realm=never ends} `},
		{[]string{`=,"=" a=b, ,Basic`}, `basic{} `},
		{[]string{`"\`, `Basic realm="\`}, `\{} basic{realm=\} `},
	} {
		got := ""
		for _, c := range challenges(http.Header{"Www-Authenticate": tc.lines}) {
			got += c.scheme + strings.TrimPrefix(fmt.Sprint(c.params), "map")
		}
		want := strings.NewReplacer("} ", "]", "{", "[", "=", ":").Replace(tc.want)
		if strings.ReplaceAll(got, "=", ":") != want {
			t.Errorf("%q gives %s, want %s", tc.lines, got, want)
		}
	}
	if n := len(challenges(http.Header{"Www-Authenticate": {"Basic", `Bearer realm="` + strings.Repeat("a", bounds.ChallengeBytes) + `"`}})); n != 1 {
		t.Errorf("%d challenges are read, want only that of the short line", n)
	}
	if n := len(challenges(http.Header{"Www-Authenticate": {strings.Repeat("a,", 1000), "b"}})); n != bounds.Challenges {
		t.Errorf("%d challenges are read, want %d", n, bounds.Challenges)
	}
}

func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Bearer realm="a",service=b, Basic x==`, `Basic`, `Negotiate abc==, NTLM`, `a="\"\\`, `a =  b`, `,,, ,=`, `Bearer scope="a,b c" , error=x`,
		strings.Repeat("a ", 100), strings.Repeat(`a="`, 100), "\xff=\xfe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := challenges(http.Header{"Www-Authenticate": {s, s}})
		if len(out) > bounds.Challenges {
			t.Errorf("%d challenges", len(out))
		}
		read := 0
		for _, c := range out {
			if c.scheme == "" || strings.ContainsAny(c.scheme, " \t,=\"") {
				t.Errorf("scheme %q", c.scheme)
			}
			for name, value := range c.params {
				if name == "" || value == "" || strings.ContainsAny(name, " \t,=\"") {
					t.Errorf("%q has the value %q", name, value)
				}
				read += len(name) + len(value)
			}
		}
		if read > 6*len(s) { // two lines, and what is no UTF-8 takes three bytes in lower case
			t.Errorf("%d bytes are read of %d", read, len(s))
		}
	})
}
