package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"
)

type targetKey struct{}

// bundleHandler serves what the bundle's registry has, as it is. The target is in the
// request's context.
func bundleHandler(address string, log *slog.Logger) (http.Handler, error) {
	if address == "" {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			missing(req.Context().Value(targetKey{}).(target), nil).write(w)
		}), nil
	}
	upstream, err := url.Parse(address)
	if err != nil || upstream.Scheme != "http" || upstream.Host == "" {
		return nil, fmt.Errorf("the address of the bundle's registry is %q, not like http://127.0.0.1:5000", address)
	}
	transport := &http.Transport{ // no proxy of the environment
		MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: time.Minute, DisableCompression: true,
	}
	at := func(t target) *url.URL {
		return &url.URL{Scheme: upstream.Scheme, Host: upstream.Host, Path: t.path(), RawQuery: url.Values{"ns": {t.host}}.Encode()}
	}
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = at(p.In.Context().Value(targetKey{}).(target)), upstream.Host
			p.Out.Header = http.Header{}
			for _, name := range []string{"Accept", "Range", "If-None-Match"} {
				if v := p.In.Header.Values(name); v != nil {
					p.Out.Header[name] = v
				}
			}
			p.Out.Body, p.Out.ContentLength = nil, 0
		},
		ModifyResponse: func(resp *http.Response) error {
			t := resp.Request.Context().Value(targetKey{}).(target)
			if resp.StatusCode != http.StatusNotFound || t.kind != kindManifest && t.kind != kindTags {
				return nil
			}
			return replace(resp, missing(t, tags(resp.Request.Context(), transport, at(target{kind: kindTags, host: t.host, repo: t.repo}))))
		},
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			if req.Context().Err() != nil {
				return // the client is gone
			}
			log.Error("asking the bundle's registry", "error", err)
			unavailable("the registry of the appliance's own images does not answer; try again").write(w)
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}, nil
}

// missing says which line adds an image to the appliance. tags are those that it has.
func missing(t target, tags []string) *refusal {
	e := &refusal{status: http.StatusNotFound, code: "MANIFEST_UNKNOWN"}
	what := "not in this appliance,"
	if len(tags) > 0 {
		what = fmt.Sprintf("not in this appliance, which has %s:%s,", t.host+"/"+t.repo, strings.Join(tags, ", :"))
	} else {
		e.code = "NAME_UNKNOWN"
	}
	line := t
	if t.kind != kindManifest {
		line = target{kind: kindManifest, host: t.host, repo: t.repo, ref: "TAG"}
	}
	e.message = fmt.Sprintf("%s is %s and nothing can be fetched here; this line of appliance.yaml adds it to the next one: images: [%s]", t, what, line)
	return e
}

// maxTags is how many tags a message names.
const maxTags = 5

// tags asks for some tags of a repository. Without an answer there are none to tell of.
func tags(ctx context.Context, transport http.RoundTripper, u *url.URL) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var list struct{ Tags []string }
	if resp.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&list) != nil {
		return nil
	}
	return list.Tags[:min(len(list.Tags), maxTags)]
}

// replace puts an error in a response's place.
func replace(resp *http.Response, e *refusal) error {
	resp.Body.Close()
	body := e.body()
	resp.StatusCode, resp.Status, resp.ContentLength = e.status, "", int64(len(body))
	resp.Header = http.Header{"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(body))}}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}
