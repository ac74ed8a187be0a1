package images

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
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
	if n := len(challenges(http.Header{"Www-Authenticate": {strings.Repeat("a,", 1000), "b"}})); n != maxChallenges {
		t.Errorf("%d challenges are read, want %d", n, maxChallenges)
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="a",service=b, Basic x==`)
	f.Fuzz(func(t *testing.T, s string) { parseChallenges(s) })
}
