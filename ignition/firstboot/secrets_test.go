package firstboot

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"golang.org/x/crypto/bcrypt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"atoll/bundle"
)

const secretManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: auth}
---
apiVersion: v1
kind: Secret
metadata: {name: dex, namespace: auth}
stringData: {hash: published, kept: text}
---
apiVersion: v1
kind: Secret
metadata: {name: store, namespace: auth}
data: {password: bWluaW8xMjM=, kept: bWluaW8=}
---
apiVersion: v1
kind: Secret
metadata: {name: empty, namespace: auth}
`

func secretPlan() []bundle.Secret {
	return []bundle.Secret{
		{Name: "user-password", User: "user@example.com", Reason: "signing in", Keys: []bundle.SecretKey{
			{Namespace: "auth", Secret: "dex", Key: "hash", Hash: bundle.HashBcrypt},
			{Namespace: "auth", Secret: "empty", Key: "plain"},
		}},
		{Name: "store", Reason: "the object store", Keys: []bundle.SecretKey{
			{Namespace: "auth", Secret: "store", Key: "password"},
			{Namespace: "auth", Secret: "store", Key: "added"},
			{Namespace: "auth", Secret: "dex", Key: "added"},
		}},
	}
}

func secretPhases(t *testing.T) [][]*unstructured.Unstructured {
	t.Helper()
	objs, err := ssautil.ReadObjects(strings.NewReader(secretManifest))
	if err != nil {
		t.Fatal(err)
	}
	return [][]*unstructured.Unstructured{nil, objs}
}

func read(t *testing.T, path string) map[string]Secret {
	t.Helper()
	secrets, err := ReadSecrets(path)
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

// place is one run on a node whose file is at path.
func place(t *testing.T, path string) (map[string]Secret, []*unstructured.Unstructured) {
	t.Helper()
	phases := secretPhases(t)
	if err := placeSecrets(path, secretPlan(), phases, false); err != nil {
		t.Fatal(err)
	}
	return read(t, path), phases[1]
}

// TestPlaceSecrets makes secrets up on two nodes, and runs again on one of them.
func TestPlaceSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "atoll", "secrets.json")
	made, objs := place(t, path)
	user, store := made["user-password"], made["store"]
	for _, s := range made {
		if !regexp.MustCompile(`^[a-z0-9]{32}$`).MatchString(s.Value) {
			t.Errorf("value is %q", s.Value)
		}
	}
	if user.Value == store.Value || user.User != "user@example.com" || store.Reason != "the object store" || store.Bcrypt != "" {
		t.Errorf("made up %+v", made)
	}
	if cost, err := bcrypt.Cost([]byte(user.Bcrypt)); err != nil || cost != 12 {
		t.Errorf("hash has cost %d: %v", cost, err)
	}
	if err := bcrypt.CompareHashAndPassword([]byte(user.Bcrypt), []byte(user.Value)); err != nil {
		t.Error(err)
	}
	for name, mode := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}

	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for i, want := range []map[string]map[string]any{
		1: {"stringData": {"hash": user.Bcrypt, "kept": "text", "added": store.Value}, "data": nil},
		2: {"data": {"password": b64(store.Value), "added": b64(store.Value), "kept": "bWluaW8="}, "stringData": nil},
		3: {"data": {"plain": b64(user.Value)}, "stringData": nil},
	} {
		for part, fields := range want {
			got, _ := objs[i].Object[part].(map[string]any)
			if len(got) != len(fields) {
				t.Errorf("%s has %s %v, want %v", name(objs[i]), part, got, fields)
			}
			for k, v := range fields {
				if got[k] != v {
					t.Errorf("%s has %s.%s %v, want %v", name(objs[i]), part, k, got[k], v)
				}
			}
		}
	}

	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := place(t, path)
	if again["user-password"] != user || again["store"] != store {
		t.Error("the second run made other secrets")
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the second run wrote the file anew: %v", err)
	}
	if other, _ := place(t, filepath.Join(t.TempDir(), "secrets.json")); other["store"].Value == store.Value {
		t.Error("two nodes made the same up")
	}
}

// TestSecretsOfAnotherPlan adds to the file, and takes nothing from it.
func TestSecretsOfAnotherPlan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.json")
	if _, err := makeSecrets(path, []bundle.Secret{{Name: "old"}, {Name: "store", Reason: "x"}}, false); err != nil {
		t.Fatal(err)
	}
	old := read(t, path)
	made, _ := place(t, path)
	if len(made) != 3 || made["old"] != old["old"] || made["store"].Value != old["store"].Value || made["store"].Reason != "the object store" {
		t.Errorf("%+v became %+v", old, made)
	}
}

// TestSecretsCut has a run that was killed while it wrote, and one that cannot write:
// what was there stays.
func TestSecretsCut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secrets.json")
	if _, err := makeSecrets(path, []bundle.Secret{{Name: "store"}}, false); err != nil {
		t.Fatal(err)
	}
	store := read(t, path)["store"].Value
	put(t, dir, ".secrets.json.tmp-1", `{"store": {"val`)
	if made, _ := place(t, path); made["store"].Value != store {
		t.Error("after the cut there is another secret")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}

	long := strings.Repeat("s", 250) // a temporary file's name beside it is too long
	put(t, dir, long, `{"store": {"value": "old"}}`)
	if err := placeSecrets(filepath.Join(dir, long), secretPlan(), secretPhases(t), false); err == nil {
		t.Error("was not written whole")
	}
	if got := read(t, filepath.Join(dir, long)); len(got) != 1 || got["store"].Value != "old" {
		t.Errorf("old file became %+v", got)
	}
}

func TestSecretsDamaged(t *testing.T) {
	for _, text := range []string{"", "{", "null", "[]", `{"store": {}}`, `{"store": "x"}`, `{"store": {"value": "hunter\2"}}`} {
		dir := t.TempDir()
		put(t, dir, "secrets.json", text)
		err := placeSecrets(filepath.Join(dir, "secrets.json"), secretPlan(), secretPhases(t), false)
		if err == nil || !strings.Contains(err.Error(), "put it back from a backup") || strings.Contains(err.Error(), "invalid character") {
			t.Errorf("%s: got %v", text, err)
		}
		if got := get(t, dir, "secrets.json"); got != text {
			t.Errorf("%s was replaced by %s", text, got)
		}
	}
}

// TestSecretsRefused has plans that are broken, and one whose secrets are lost: nothing
// is made up.
func TestSecretsRefused(t *testing.T) {
	elsewhere := secretPlan()
	elsewhere[1].Keys[0].Secret = "none"
	hash := secretPlan()
	hash[1].Keys[0].Hash = "md5"
	for _, tc := range []struct {
		plan  []bundle.Secret
		again bool
		want  string
	}{
		{elsewhere, false, "secret store goes to Secret auth/none, which no phase installs"},
		{hash, false, `secret store wants the unknown hash "md5"`},
		{secretPlan(), true, "gone from"},
	} {
		path := filepath.Join(t.TempDir(), "secrets.json")
		if err := placeSecrets(path, tc.plan, secretPhases(t), tc.again); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %s", err, tc.want)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file is there: %v", tc.want, err)
		}
	}
}

// TestSetKeyOdd has Secrets that no API server takes: they are told, without what they hold.
func TestSetKeyOdd(t *testing.T) {
	for _, part := range []string{"data", "stringData"} {
		o := &unstructured.Unstructured{Object: map[string]any{part: "hunter2"}}
		if err := setKey(o, "k", "v"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", part, err)
		}
		o.Object[part] = nil
		if err := setKey(o, "k", "v"); err != nil || o.Object["data"].(map[string]any)["k"] != "dg==" {
			t.Errorf("%s is null: %v, %v", part, o.Object, err)
		}
	}
}

// TestInstallSecrets installs into a real API server: a first time, again, and with
// another plan, which applies it all anew. No value is told anywhere.
func TestInstallSecrets(t *testing.T) {
	if !isolated(t) {
		return
	}
	cp := startControlPlane(t)
	var told bytes.Buffer
	o := testOptions(t)
	o.Console, o.Log = &told, slog.New(slog.NewTextHandler(&told, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.installed = filepath.Join(t.TempDir(), "atoll", "installed.json")
	path := filepath.Join(filepath.Dir(o.installed), "secrets.json")
	install := func(stack string, secrets []bundle.Secret) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		plan := &bundle.Plan{Stack: stack, Secrets: secrets, Phases: []bundle.Phase{{Name: "auth", Manifest: secretManifest, Timeout: time.Minute}}}
		return Install(ctx, pack(t, release, plan), cp.kubeconfig, o)
	}
	live := func(name string) *corev1.Secret {
		s, err := cp.core.CoreV1().Secrets("auth").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}

	broken := secretPlan()
	broken[0].Keys[0].Secret = "none"
	if err := install("lab", broken); err == nil || !strings.Contains(err.Error(), "auth/none") {
		t.Errorf("a broken plan: %v", err)
	}
	if _, err := cp.core.CoreV1().Namespaces().Get(t.Context(), "auth", metav1.GetOptions{}); err == nil {
		t.Error("a broken plan was applied")
	}
	if s, err := ReadStatus(o.Status); err != nil || s.State != bundle.StateFailed || !strings.HasPrefix(s.Error, "secrets: the plan is broken") {
		t.Errorf("status of a broken plan: %+v, %v", s, err)
	}

	if err := install("lab", secretPlan()); err != nil {
		t.Fatal(err)
	}
	made := read(t, path)
	user, store := made["user-password"], made["store"]
	want := map[string]map[string]string{
		"dex":   {"hash": user.Bcrypt, "kept": "text", "added": store.Value},
		"store": {"password": store.Value, "kept": "minio", "added": store.Value},
		"empty": {"plain": user.Value},
	}
	versions := map[string]string{}
	check := func(when string) {
		t.Helper()
		for name, keys := range want {
			s := live(name)
			if len(s.Data) != len(keys) {
				t.Errorf("%s: Secret %s has %d keys, want %d", when, name, len(s.Data), len(keys))
			}
			for k, v := range keys {
				if string(s.Data[k]) != v {
					t.Errorf("%s: key %s of Secret %s is %q, want %q", when, k, name, s.Data[k], v)
				}
			}
			if v := versions[name]; v != "" && v != s.ResourceVersion {
				t.Errorf("%s: Secret %s was written again", when, name)
			}
			versions[name] = s.ResourceVersion
		}
	}
	check("installed")
	if !strings.Contains(told.String(), "atoll: ready\natoll: sign in as user@example.com; the password: sudo atoll node secret user-password\n") {
		t.Errorf("console and log have %q", told.String())
	}
	for _, stack := range []string{"lab", "another"} {
		if err := install(stack, secretPlan()); err != nil {
			t.Fatal(err)
		}
		check(stack + " again")
	}

	status := get(t, filepath.Dir(o.Status), filepath.Base(o.Status))
	for _, value := range []string{user.Value, user.Bcrypt, store.Value} {
		for _, v := range []string{value, base64.StdEncoding.EncodeToString([]byte(value))} {
			if strings.Contains(told.String()+status+get(t, filepath.Dir(path), "installed.json"), v) {
				t.Errorf("%s was told", v)
			}
		}
	}
}
