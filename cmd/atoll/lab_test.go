package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"atoll/test/regtest"
)

// lab is a script's second registry, lab.test, which misbehaves as the script says. Its
// host and port are $LAB; the digest of lab/multi:1 is $INDEX.
type lab struct{ *regtest.Registry }

// newLab starts it.
func newLab(e *testscript.Env) lab {
	r := regtest.New(e.T().(testing.TB)) // by the documentation of testscript.Run
	small, large := regtest.Bytes(1, 4096), regtest.Bytes(2, 5<<20)
	tiny := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{small, large}},
		"lab/tiny:1", "lab/tiny:latest", "team/app:1", "app:latest", "a/b/c/d/e/f/app:1", "app:V1.0_rc.2-x")
	r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(10, 4096)}}, "lab/two:1")
	r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(11, 4096)}}, "lab/three:1")
	arm := r.AddImage(regtest.Image{Arch: "arm64", Layers: [][]byte{small}})
	e.Setenv("INDEX", r.AddIndex([]v1.Descriptor{tiny, arm}, "lab/multi:1").Digest.Hex)
	a, b, none := regtest.Bytes(3, 300<<10), regtest.Bytes(4, 600<<10), []byte{}
	for i := range 8 {
		variant := fmt.Sprintf("v%d", i%2)
		r.AddImage(regtest.Image{Arch: "amd64", Variant: variant, Layers: [][]byte{a, none, a, none, none, b, a}}, fmt.Sprintf("lab/dup:%d", i))
	}
	e.Setenv("LAB", r.Host)
	return lab{r}
}

// faults are what "lab NAME" makes it do.
func (l lab) faults() map[string]regtest.Fault {
	limit := func(header ...string) regtest.Fault {
		return regtest.On(regtest.Refuse(http.StatusTooManyRequests, header...), regtest.Manifest, regtest.Blob)
	}
	return map[string]regtest.Fault{
		"well":          nil,
		"no-digest":     regtest.On(regtest.All(noDigest, regtest.Chunked), regtest.Manifest),
		"no-head":       regtest.On(regtest.All(noDigest, head(regtest.Refuse(http.StatusMethodNotAllowed))), regtest.Manifest),
		"head-is-empty": regtest.On(regtest.All(noDigest, head(regtest.Empty)), regtest.Manifest),
		"chunked":       regtest.On(regtest.All(noDigest, regtest.Chunked), regtest.Manifest, regtest.Blob),
		"cut-and-expire": regtest.First(1, large(regtest.All(regtest.Cut(0.5), func(regtest.Request, *regtest.Answer) {
			l.Expire()
		}))),
		"stall-once": regtest.First(1, large(regtest.Stall(0.5))),
		"stall":      large(regtest.Stall(0.5)),
		"limit-json": regtest.First(1, limit("Retry-After", "1")),
		"limit-text": regtest.First(1, func(q regtest.Request, a *regtest.Answer) {
			limit("Retry-After", time.Now().Add(2*time.Second).UTC().Format(http.TimeFormat))(q, a)
			if a.Status == http.StatusTooManyRequests {
				regtest.Plain("slow down")(q, a)
			}
		}),
		"limit-empty": regtest.First(1, regtest.All(limit(), wordless)),
		"limit-day":   limit("Retry-After", "86400"),
		"limit-while": limit("Retry-After", "300"),
		"wordless":    wordless,
		"one-gone": func(q regtest.Request, a *regtest.Answer) {
			if q.Kind == regtest.Manifest && q.Repository == "lab/two" {
				regtest.Refuse(http.StatusNotFound)(q, a)
			}
		},
		"tenant": regtest.On(func(q regtest.Request, a *regtest.Answer) {
			if !strings.Contains(q.Query, "tenant=7") || !strings.Contains(q.Query, "scope=") {
				regtest.Refuse(http.StatusBadRequest)(q, a)
			}
		}, regtest.Token),
	}
}

// wordless takes the words out of refusals.
func wordless(q regtest.Request, a *regtest.Answer) {
	if a.Status >= http.StatusBadRequest {
		regtest.Plain("")(q, a)
	}
}

func noDigest(_ regtest.Request, a *regtest.Answer) { a.Header.Del("Docker-Content-Digest") }

// head limits a fault to requests for the head alone.
func head(f regtest.Fault) regtest.Fault {
	return func(q regtest.Request, a *regtest.Answer) {
		if q.Method == http.MethodHead {
			f(q, a)
		}
	}
}

// large limits a fault to bodies of over a MiB.
func large(f regtest.Fault) regtest.Fault {
	return func(q regtest.Request, a *regtest.Answer) {
		if len(a.Body) > 1<<20 {
			f(q, a)
		}
	}
}

// labLogins are what "lab login NAME" makes it want.
var labLogins = map[string]func(lab) *regtest.Auth{
	"negotiate-first": offers(func(bearer string) []string { return []string{"Negotiate", bearer} }),
	"one-line":        offers(func(bearer string) []string { return []string{`Basic realm="a, b", ` + bearer} }),
	"negotiate":       offers(func(string) []string { return []string{"Negotiate"} }),
	"odd-case": func(l lab) *regtest.Auth {
		return &regtest.Auth{
			Challenge: func(realm, _ string) []string {
				return []string{fmt.Sprintf(`bEARER service="lab" , realm="%s?tenant=7"`, realm)}
			},
			Answer: func(token string) string { return fmt.Sprintf(`{"access_token":%q}`, token) },
		}
	},
	"elsewhere": func(l lab) *regtest.Auth { return &regtest.Auth{Realm: "http://" + l.Elsewhere + "/token"} },
	"anyone":    func(lab) *regtest.Auth { return &regtest.Auth{} },
	"token":     func(lab) *regtest.Auth { return &regtest.Auth{User: "u", Password: "s3cret"} },
	"password":  func(lab) *regtest.Auth { return &regtest.Auth{User: "u", Password: "s3cret", Basic: true} },
}

func offers(lines func(bearer string) []string) func(lab) *regtest.Auth {
	return func(lab) *regtest.Auth {
		return &regtest.Auth{Challenge: func(realm, scope string) []string {
			return lines(fmt.Sprintf(`Bearer realm="%s",service="lab, inc",scope="%s"`, realm, scope))
		}}
	}
}

// cmdLab is the script command "lab FAULT" or "lab login NAME", which also begin to count
// requests anew, "lab moved" (lab/multi:1 is another image by now), "lab most N KIND" (no
// more requests of a kind came) or "lab resumed" (a blob was asked for from its middle on).
func cmdLab(ts *testscript.TestScript, _ bool, args []string) {
	l := ts.Value(worldKey{}).(*world).lab
	fault, isFault := l.faults()[args[0]]
	switch {
	case isFault:
		l.Break(fault)
		l.Forget()
	case args[0] == "login" && labLogins[args[1]] != nil:
		l.Login(labLogins[args[1]](l))
		l.Forget()
	case args[0] == "moved":
		l.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(9, 3000)}}, "lab/multi:1")
	case args[0] == "most":
		most, err := strconv.Atoi(args[1])
		ts.Check(err)
		if n := l.Count(regtest.Kind(args[2])); n > most {
			ts.Fatalf("%d requests of the kind %s, want %d at most", n, args[2], most)
		}
	case args[0] == "resumed":
		if !slices.ContainsFunc(l.Requests(), func(q regtest.Request) bool { return q.From > 0 }) {
			ts.Fatalf("nothing was asked for from its middle on")
		}
	default:
		ts.Fatalf("lab %v: want one of %v, login, moved, most or resumed", args, slices.Sorted(maps.Keys(l.faults())))
	}
}

// cmdInterrupts is the script command "interrupts KIND BYTES COMMAND [ARG…]": when the lab
// has sent so many bytes for a request of the kind, or refused it, the command is
// interrupted. It has to say so and end with 130.
func cmdInterrupts(ts *testscript.TestScript, _ bool, args []string) {
	l := ts.Value(worldKey{}).(*world).lab
	least, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	var out bytes.Buffer
	cmd := exec.Command(ts.Getenv("ATOLL"), args[3:]...)
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), &out
	for _, key := range []string{"PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR"} {
		cmd.Env = append(cmd.Env, key+"="+ts.Getenv(key))
	}
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !slices.ContainsFunc(l.Requests(), func(q regtest.Request) bool {
		return string(q.Kind) == args[0] && (q.Sent >= least || q.Status >= http.StatusBadRequest)
	}) {
		select {
		case err := <-ended:
			ts.Fatalf("it ended before: %v\n%s", err, &out)
		case <-time.After(5 * time.Millisecond):
		}
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		cmd.Process.Kill()
		ts.Fatalf("it goes on:\n%s", &out)
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(out.String(), "atoll: interrupted; the same command goes on from here") {
		ts.Fatalf("%s exits with %d, want 130:\n%s", filepath.Base(args[2]), code, &out)
	}
}
