package bundle

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/invopop/jsonschema"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestSchema holds the checked-in schema against the types it is generated from.
func TestSchema(t *testing.T) {
	r := jsonschema.Reflector{DoNotReference: true, FieldNameTag: "yaml"}
	if err := r.AddGoComments("atoll", "."); err != nil {
		t.Fatal(err)
	}
	// Comments are keyed by import path, and this package is read as its folder.
	comments := make(map[string]string, len(r.CommentMap))
	for k, v := range r.CommentMap {
		comments["atoll/bundle"+k[len("atoll"):]] = v
	}
	r.CommentMap = comments
	s := r.Reflect(&Definition{})
	s.ID = ""
	s.Title = "Atoll appliance definition"
	got, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile("appliance.schema.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, Schema) {
		t.Errorf("appliance.schema.json is not what the types say; run: go test ./bundle -run TestSchema -update")
	}
}
