package regtest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// get asks for a path, or URL, and gives the status and as much of the body as comes.
func get(t *testing.T, r *Registry, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	if strings.HasPrefix(url, "/") {
		url = r.URL() + url
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // which follows nothing
	if err != nil {
		return nil, nil
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body) // a cut is a part of what is tested
	return resp, data
}

func TestGoodRegistry(t *testing.T) {
	r := New(t)
	layer := Bytes(1, 100_000)
	img := r.AddImage(Image{Arch: "amd64", Layers: [][]byte{layer}}, "lab/x:1")
	for _, name := range []string{"1", img.Digest.String()} {
		if resp, body := get(t, r, "/v2/lab/x/manifests/"+name); resp.StatusCode != 200 || digest(body) != img.Digest {
			t.Errorf("%s: %d, %s", name, resp.StatusCode, body)
		}
	}
	path := "/v2/lab/x/blobs/" + digest(layer).String()
	for _, tc := range []struct {
		asked  string
		status int
		want   []byte
		says   string
	}{
		{"", 200, layer, ""},
		{"bytes=70000-", 206, layer[70000:], "bytes 70000-99999/100000"},
		{"bytes=10-19", 206, layer[10:20], "bytes 10-19/100000"},
		{"bytes=99990-123456", 206, layer[99990:], "bytes 99990-99999/100000"},
		{"bytes=100000-", 416, nil, "bytes */100000"},
		{"lines=1-2", 200, layer, ""},
	} {
		resp, body := get(t, r, path, "Range", tc.asked)
		if resp.StatusCode != tc.status || !bytes.Equal(body, tc.want) || resp.Header.Get("Content-Range") != tc.says {
			t.Errorf("%q: got %d, %d bytes, range %q", tc.asked, resp.StatusCode, len(body), resp.Header.Get("Content-Range"))
		}
	}
	if resp, _ := get(t, r, "/v2/lab/x/manifests/2"); resp.StatusCode != 404 {
		t.Errorf("unknown tag: %d", resp.StatusCode)
	}
	if got, want := r.Sent(digest(layer)), int64(100_000+30_000+10+10+100_000); got != want {
		t.Errorf("sent %d bytes of the layer, want %d", got, want)
	}
	if q := r.Requests()[3]; q.Kind != Blob || q.Repository != "lab/x" || q.From != 70000 || q.N != 1 || q.Broken || q.Spoiled {
		t.Errorf("request is written down as %+v", q)
	}
}

func TestFaults(t *testing.T) {
	layer := Bytes(1, 200_000)
	path := "/blobs/" + digest(layer).String()
	for _, tc := range []struct {
		name    string
		fault   Fault
		status  int
		length  int
		broken  bool
		spoiled bool
	}{
		{"none", nil, 206, 100_000, false, false},
		{"cut", Cut(0.5), 206, 50_000, true, false},
		{"reset", Reset(0), 206, 0, true, false},
		{"drop", Drop, 0, 0, true, false},
		{"flip", Flip, 206, 100_000, false, true},
		{"longer", Longer, 206, 100_001, false, true},
		{"long lie", Length(5), 206, 100_000, true, false},
		{"short lie", Length(-5), 206, 99_995, false, false},
		{"no range", NoRange, 200, 200_000, false, false},
		{"wrong range", WrongRange, 206, 100_000, false, true},
		{"false range", FalseRange, 206, 100_000, false, true},
		{"chunked", Chunked, 206, 100_000, false, false},
		{"refused", Refuse(503, "Retry-After", "1"), 503, 63, false, false},
		{"page", Page, 200, 56, false, true},
		{"empty", Empty, 200, 0, false, false},
		{"of another", Of(Flip, "else"), 206, 100_000, false, false},
		{"on another", On(Flip, Manifest), 206, 100_000, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := New(t)
			r.AddBlob("", layer)
			r.Break(tc.fault)
			resp, body := get(t, r, "/v2/x"+path, "Range", "bytes=100000-")
			if resp == nil {
				resp = &http.Response{}
			}
			if resp.StatusCode != tc.status && tc.status != 0 || len(body) != tc.length {
				t.Errorf("got %d with %d bytes", resp.StatusCode, len(body))
			}
			if q := r.Requests()[0]; q.Broken != tc.broken || q.Spoiled != tc.spoiled {
				t.Errorf("written down as %+v", q)
			}
		})
	}
}

func TestPasses(t *testing.T) {
	r := New(t)
	layer := Bytes(1, 10)
	r.AddBlob("", layer)
	path := "/v2/lab/x/blobs/" + digest(layer).String()
	r.Login(&Auth{User: "u", Password: "p", Uses: 1})
	if resp, _ := get(t, r, path); resp.StatusCode != 401 || !strings.Contains(resp.Header.Get("WWW-Authenticate"), `scope="repository:lab/x:pull"`) {
		t.Errorf("without a token: %d, %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := get(t, r, "/token?scope=repository:lab/x:pull"); resp.StatusCode != 401 {
		t.Errorf("a token without a password: %d", resp.StatusCode)
	}
	get(t, r, "/token?scope=repository:lab/y:pull", "Authorization", "Basic dTpw") // pass-1, for another repository
	get(t, r, "/token?scope=repository:lab/x:pull", "Authorization", "Basic dTpw") // pass-2
	r.Store(&Presign{At: r.Elsewhere, Uses: 1})
	for i, tc := range []struct {
		token  string
		status int
	}{{"pass-1", 401}, {"pass-2", 307}, {"pass-2", 401}} {
		resp, _ := get(t, r, path, "Authorization", "Bearer "+tc.token)
		if resp.StatusCode != tc.status {
			t.Errorf("%d: got %d with %s, want %d", i, resp.StatusCode, tc.token, tc.status)
		}
		if tc.status != 307 {
			continue
		}
		url := resp.Header.Get("Location")
		if resp, _ := get(t, r, url, "Authorization", "Bearer pass-2"); resp.StatusCode != 400 {
			t.Errorf("a login at the storage: %d", resp.StatusCode)
		}
		for _, want := range []int{200, 403} {
			if resp, _ := get(t, r, url); resp.StatusCode != want {
				t.Errorf("storage answered %d, want %d", resp.StatusCode, want)
			}
		}
	}
}
