// Standin takes the place of a program that cannot be had: it answers every HTTP request,
// and says in its log and in each answer that it is not the program. The answer lists the
// request's headers, so that a test sees who the gateway says is asking.
//
//	standin NAME ADDRESS…
//
// Where LOGOUT_URL is set, as for Kubeflow's dashboard, the page has a link to it.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

// run serves on every address until the context ends.
func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("want a name and addresses to listen on")
	}
	log.SetFlags(log.LstdFlags | log.LUTC)
	server := &http.Server{Handler: page{args[0], os.Getenv("LOGOUT_URL")}, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, len(args))
	for _, address := range args[1:] {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return errors.Join(err, server.Close())
		}
		log.Printf("a stand-in for %s, which is not here, listens on %s", args[0], l.Addr())
		go func() { ended <- server.Serve(l) }()
	}
	select {
	case err := <-ended:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
		return server.Close()
	}
}

// page is what every request is answered with.
type page struct{ name, signOut string }

var text = template.Must(template.New("").Parse(`<!doctype html>
<meta charset="utf-8">
<title>Stand-in: {{.Name}}</title>
<h1>Stand-in</h1>
<p>This is a stand-in for {{.Name}}, which is not here.</p>
{{with .SignOut}}<p><a id="sign-out" href="{{.}}">Sign out</a></p>
{{end}}<pre id="request">{{.Request}}
{{range .Headers}}{{.}}
{{end}}</pre>
`))

func (p page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var headers []string
	for _, name := range slices.SortedFunc(maps.Keys(r.Header), cmp.Compare[string]) {
		for _, value := range r.Header[name] {
			if name == "Authorization" || name == "Cookie" { // a page gets into screenshots and logs
				value = fmt.Sprintf("(%d bytes)", len(value))
			}
			headers = append(headers, strings.ToLower(name)+": "+value)
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Stand-In", p.name)
	err := text.Execute(w, map[string]any{
		"Name": p.name, "SignOut": p.signOut, "Request": r.Method + " " + r.URL.RequestURI(), "Headers": headers,
	})
	if err != nil {
		log.Printf("answering %s: %v", r.RemoteAddr, err)
	}
}
