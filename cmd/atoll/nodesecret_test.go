package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNodeSecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secrets.json")
	text := `{"user-password": {"reason": "signing in", "user": "ann", "value": "hunter2", "bcrypt": "$2a$"}, "db": {"reason": "the database", "value": "x"}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	e := &env{stdout: &out}
	if err := runNodeSecret(e, path, "user-password"); err != nil || out.String() != "hunter2\n" {
		t.Errorf("value: %q, %v", out.String(), err)
	}
	out.Reset()
	if err := runNodeSecrets(e, path); err != nil || out.String() != "db                  the database\nuser-password  ann  signing in\n" {
		t.Errorf("list: %q, %v", out.String(), err)
	}
	out.Reset()
	for _, tc := range []struct{ path, name, want, hint string }{
		{path, "none", `no secret "none"`, "lists those"},
		{filepath.Join(dir, "none.json"), "db", "no such file", "atoll node status"},
	} {
		err := runNodeSecret(e, tc.path, tc.name)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !slices.ContainsFunc(hints(err), func(h string) bool { return strings.Contains(h, tc.hint) }) {
			t.Errorf("%s: got %v, hints %q", tc.name, err, hints(err))
		}
	}
	if out.Len() > 0 {
		t.Errorf("printed %q", out.String())
	}
}
