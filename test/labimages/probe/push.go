package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"
)

const (
	// registryTimeout is for a registry whose name cannot be resolved yet.
	registryTimeout = 3 * time.Minute
	ociManifest     = "application/vnd.oci.image.manifest.v1+json"
	ociConfig       = "application/vnd.oci.image.config.v1+json"
	ociLayer        = "application/vnd.oci.image.layer.v1.tar"
)

// target is an image's name as a client of its registry needs it.
type target struct {
	url, repository, tag string
	password             string // none: without logging in
}

// parseTarget reads HOST/PATH:TAG. The registry speaks plain HTTP.
func parseTarget(name string) (target, error) {
	host, path, ok := strings.Cut(name, "/")
	repository, tag, tagged := strings.Cut(path, ":")
	if !ok || !tagged || host == "" || repository == "" || tag == "" {
		return target{}, fmt.Errorf("%q is not HOST/PATH:TAG", name)
	}
	return target{url: "http://" + host + "/v2/", repository: repository, tag: tag}, nil
}

// push makes an image of this very program, which serves, and pushes it under a name, with
// the token in a file as password, if one is named. Then the names that are refused without
// one must be refused, and those that are readable be readable.
func push(ctx context.Context, name, token, refused, readable string) error {
	t, err := parseTarget(name)
	if err != nil {
		return err
	}
	if err := awaitRegistry(ctx, t.url); err != nil {
		return err
	}
	if token != "" {
		data, err := os.ReadFile(token)
		if err != nil {
			return err
		}
		t.password = strings.TrimSpace(string(data))
	}
	if err := t.push(ctx); err != nil {
		return fmt.Errorf("pushing %s: %w", name, err)
	}
	fmt.Printf("%s is pushed\n", name)
	for other := range strings.SplitSeq(readable, ",") {
		if other == "" {
			continue
		}
		t, err := parseTarget(other)
		if err != nil {
			return err
		}
		if _, err := t.do(ctx, http.MethodGet, t.manifest(), "", nil, http.StatusOK); err != nil {
			return fmt.Errorf("reading %s: %w", other, err)
		}
	}
	return refuses(ctx, refused)
}

// refuses tries to push under each of the names, which must be refused.
func refuses(ctx context.Context, names string) error {
	for name := range strings.SplitSeq(names, ",") {
		if name == "" {
			continue
		}
		t, err := parseTarget(name)
		if err != nil {
			return err
		}
		if err := awaitRegistry(ctx, t.url); err != nil {
			return err
		}
		for _, try := range []struct{ method, url string }{
			{http.MethodPost, t.url + t.repository + "/blobs/uploads/"},
			{http.MethodPut, t.manifest()},
			{http.MethodDelete, t.manifest()},
		} {
			_, err := t.do(ctx, try.method, try.url, ociManifest, []byte("{}"), http.StatusUnauthorized, http.StatusForbidden)
			if err != nil {
				return fmt.Errorf("%s was to be refused: %w", name, err)
			}
		}
		fmt.Printf("%s is refused\n", name)
	}
	return nil
}

// awaitRegistry waits until the registry answers at all.
func awaitRegistry(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	for {
		_, err := target{}.do(ctx, http.MethodGet, url, "", nil, http.StatusOK, http.StatusUnauthorized)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the registry: %w", err)
		case <-time.After(time.Second):
		}
	}
}

func (t target) manifest() string { return t.url + t.repository + "/manifests/" + t.tag }

func (t target) push(ctx context.Context) error {
	layer, err := selfLayer()
	if err != nil {
		return err
	}
	type m = map[string]any
	config, err := json.Marshal(m{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": m{"User": "65532:65532", "Entrypoint": []string{"/probe"}, "Cmd": []string{"serve"}},
		"rootfs": m{"type": "layers", "diff_ids": []string{digestOf(layer)}},
	})
	if err != nil {
		return err
	}
	descriptor := func(mediaType string, data []byte) m {
		return m{"mediaType": mediaType, "digest": digestOf(data), "size": len(data)}
	}
	manifest, err := json.Marshal(m{
		"schemaVersion": 2, "mediaType": ociManifest,
		"config": descriptor(ociConfig, config), "layers": []m{descriptor(ociLayer, layer)},
	})
	if err != nil {
		return err
	}
	for _, blob := range [][]byte{layer, config} {
		if err := t.pushBlob(ctx, blob); err != nil {
			return err
		}
	}
	_, err = t.do(ctx, http.MethodPut, t.manifest(), ociManifest, manifest, http.StatusCreated)
	return err
}

func (t target) pushBlob(ctx context.Context, data []byte) error {
	resp, err := t.do(ctx, http.MethodPost, t.url+t.repository+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	at, err := resp.Location()
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(at.RawQuery)
	if err != nil {
		return err
	}
	query.Set("digest", digestOf(data))
	at.RawQuery = query.Encode()
	_, err = t.do(ctx, http.MethodPut, at.String(), "application/octet-stream", data, http.StatusCreated)
	return err
}

// do makes a request whose answer must have one of the codes. Its body is read and gone.
func (t target) do(ctx context.Context, method, url, contentType string, body []byte, want ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if t.password != "" {
		req.SetBasicAuth("token", t.password) // the name is of no account
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", ociManifest+", application/vnd.oci.image.index.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	for _, code := range want {
		if resp.StatusCode == code {
			return resp, nil
		}
	}
	return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text[:min(len(text), 500)])
}

// selfLayer is an uncompressed layer that has this program, and whom it runs as.
func selfLayer() ([]byte, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"etc/passwd", 0o644, []byte("nonroot:x:65532:65532:nonroot:/:/none\n")},
		{"probe", 0o755, program},
	} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }
