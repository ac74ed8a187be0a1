package bundle

import (
	"errors"
	"strings"
	"testing"
)

func TestAptSource(t *testing.T) {
	for in, want := range map[string]string{
		"deb http://h.test/debian bookworm main":                                  "",
		" deb\t[ arch=amd64,i386  signed-by=/k@x.gpg ]  http://h.test:80 a/b c d": "deb [arch=amd64,i386 signed-by=/k@x.gpg] http://h.test:80 a/b c d",
		"deb [trusted=yes] file:/srv/debian ./":                                   "",
		"deb [signed-by=/k trusted=yes] copy:/srv/a%20b sub/dir/":                 "",
		"deb http://[::1]:8080/debian $(ARCH)/":                                   "",
		"deb [check-valid-until=no by-hash=force] https://h.test/a+b~c/ sid main": "",
		// Not taken, and why.
		"":                                            "not like",
		"# deb http://h.test bookworm main":           "not like",
		"deb-src http://h.test bookworm main":         "not like",
		"rpm http://h.test bookworm main":             "not like",
		"deb http://h.test":                           "not like",
		"deb http://h.test bookworm":                  "components",
		"deb http://h.test ./ main":                   "components",
		"deb [arch=amd64 http://h.test bookworm main": "no bracket ends",
		"deb http://h.test bookworm main\ndeb [allow-insecure=yes] http://h.test a b": "one line",
		"deb http://h.test bookworm main # [x]":                                       "not a suite or component",
		"deb http://h.test bookworm \"main":                                           "not a suite or component",
		"deb http://h.test ../../x main":                                              "not a suite or component",
		"deb [arch=amd64] [trusted=yes] http://h.test bookworm main":                  "not an archive's URL",
		"deb ssh://-oProxyCommand=x/debian bookworm main":                             "not an archive's URL",
		"deb cdrom:[Debian]/ bookworm main":                                           "not an archive's URL",
		"deb mirror+file:/etc/mirrors bookworm main":                                  "not an archive's URL",
		"deb -oDir=/ bookworm main":                                                   "not an archive's URL",
		"deb http://u:s3cret@h.test/ bookworm main":                                   "credentials do not go into the URL",
		"deb [trusted=no] http://h.test bookworm main":                                `trusted is "yes"`,
		"deb [trusted=YES] http://h.test bookworm main":                               `trusted is "yes"`,
		"deb [allow-insecure=no] http://h.test bookworm main":                         "not taken",
		"deb [ALLOW-WEAK=yes] http://h.test bookworm main":                            "not taken",
		"deb [allow-downgrade-to-insecure-=yes] http://h.test bookworm main":          "not taken",
		"deb [signed-by=/k%5dx] http://h.test bookworm main":                          "not an option",
		"deb [signed-by=\"/k x\"] http://h.test bookworm main":                        "not an option",
		"deb [secret=yes] http://h.test bookworm main":                                "not an option",
		"deb [arch] http://h.test bookworm main":                                      "not an option",
	} {
		s, err := ParseAptSource(in)
		if err != nil {
			if want == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q: got %v, want %q", in, err, want)
			}
			if (want == "not taken") != errors.Is(err, ErrUnauthenticated) {
				t.Errorf("%q: %v", in, err)
			}
			continue
		}
		if want == "" {
			want = in
		}
		if s.String() != want || s.Trusted != strings.Contains(want, "trusted=yes") {
			t.Errorf("%q became %q (trusted: %v)", in, s, s.Trusted)
		}
	}
}
