package firstboot

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"golang.org/x/crypto/bcrypt"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"atoll/bundle"
)

// SecretsPath keeps what the node made up, on the data partition beside the record of
// what is installed: who loses one of them loses both.
const SecretsPath = "/var/lib/rancher/atoll/secrets.json"

const (
	// secretLength fits oauth2-proxy, which wants 16, 24 or 32 bytes, and gives 165 bits.
	secretLength   = 32
	secretAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	// bcryptCost is that of the hash which Kubeflow ships: some 0.2 s for each guess.
	bcryptCost = 12
)

// Secret is a value that this node made up.
type Secret struct {
	// Reason says what it protects.
	Reason string `json:"reason"`
	// User is the account that a person signs in with; empty if no person does.
	User  string `json:"user,omitempty"`
	Value string `json:"value"`
	// Bcrypt is the value's hash, if something reads it so. It has a salt, and is kept so
	// that applying it again changes nothing.
	Bcrypt string `json:"bcrypt,omitempty"`
}

// ReadSecrets reads what the node made up, by name. The error is [fs.ErrNotExist] if
// nothing was yet. Root alone may read it.
func ReadSecrets(path string) (map[string]Secret, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading secrets: %w", err)
	}
	var secrets map[string]Secret
	err = json.Unmarshal(data, &secrets)
	damaged := err != nil || secrets == nil
	for _, s := range secrets {
		damaged = damaged || s.Value == ""
	}
	if damaged {
		// Without what the parser says: it quotes characters, which may be a value's.
		return nil, fmt.Errorf("reading secrets: %s is damaged: put it back from a backup; if the stack was never ready on this disk, remove it and reboot", path)
	}
	return secrets, nil
}

// placeSecrets makes up what the plan wants and the node does not have, and puts it all
// into the Secrets that the phases apply. It fails before it has written or changed
// anything if a key has no place to go. With again the plan is installed already: what is
// made up now would not be what the cluster has.
func placeSecrets(path string, plan []bundle.Secret, phases [][]*unstructured.Unstructured, again bool) error {
	objects, err := secretObjects(plan, phases)
	if err != nil {
		return err
	}
	made, err := makeSecrets(path, plan, again)
	if err != nil {
		return err
	}
	for _, s := range plan {
		for _, k := range s.Keys {
			value := made[s.Name].Value
			if k.Hash == bundle.HashBcrypt {
				value = made[s.Name].Bcrypt
			}
			for _, o := range objects[secretID{k.Namespace, k.Secret}] {
				if err := setKey(o, k.Key, value); err != nil {
					return fmt.Errorf("placing secret %s in %s: %w", s.Name, name(o), err)
				}
			}
		}
	}
	return nil
}

// secretID tells a Kubernetes Secret from others.
type secretID struct{ namespace, name string }

// secretObjects finds the Secrets of all phases. A key that the plan sends elsewhere, or
// in a way that is not known, is an error.
func secretObjects(plan []bundle.Secret, phases [][]*unstructured.Unstructured) (map[secretID][]*unstructured.Unstructured, error) {
	found := map[secretID][]*unstructured.Unstructured{}
	for _, objs := range phases {
		for _, o := range objs {
			if o.GetAPIVersion() == "v1" && o.GetKind() == "Secret" {
				id := secretID{o.GetNamespace(), o.GetName()}
				found[id] = append(found[id], o)
			}
		}
	}
	var errs []error
	for _, s := range plan {
		for _, k := range s.Keys {
			if found[secretID{k.Namespace, k.Secret}] == nil {
				errs = append(errs, fmt.Errorf("the plan is broken: secret %s goes to Secret %s/%s, which no phase installs", s.Name, k.Namespace, k.Secret))
			}
			if k.Hash != "" && k.Hash != bundle.HashBcrypt {
				errs = append(errs, fmt.Errorf("the plan is broken: secret %s wants the unknown hash %q", s.Name, k.Hash))
			}
		}
	}
	return found, errors.Join(errs...)
}

// makeSecrets gives what the node has, and makes up and keeps what it lacks. What the
// plan does not know any more stays in the file.
func makeSecrets(path string, plan []bundle.Secret, again bool) (map[string]Secret, error) {
	had, err := ReadSecrets(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	made := map[string]Secret{}
	maps.Copy(made, had)
	for _, s := range plan {
		m := made[s.Name]
		if m.Value == "" {
			if again {
				return nil, fmt.Errorf("secret %s is installed, but gone from %s: put the file back from a backup", s.Name, path)
			}
			m.Value = newSecret()
		}
		m.Reason, m.User = s.Reason, s.User
		for _, k := range s.Keys {
			if k.Hash == bundle.HashBcrypt && m.Bcrypt == "" {
				hash, err := bcrypt.GenerateFromPassword([]byte(m.Value), bcryptCost)
				if err != nil {
					return nil, fmt.Errorf("hashing secret %s: %w", s.Name, err)
				}
				m.Bcrypt = string(hash)
			}
		}
		made[s.Name] = m
	}
	if maps.Equal(made, had) {
		return made, nil
	}
	return made, writeSecrets(path, made)
}

// ownSecret is a secret of the node itself, which a unit of it that is not root must know.
type ownSecret struct {
	bundle.Secret
	group  string // of the unit
	digest bool   // the unit only compares, so it gets the SHA-256, in hex
}

// ownSecrets are all of them. A node without one can do less, and no more.
var ownSecrets = []ownSecret{
	{bundle.Secret{Name: statusToken, Reason: "reads the whole status over the network"}, StatusUser, true},
	{bundle.Secret{Name: registryPassword, Reason: "pushes under any name to " + bundle.NodeRegistry, User: "root"}, RegistryUser, false},
}

// digestSuffix follows a secret's name in the file of its digest.
const digestSuffix = ".sha256"

// place makes the secret up once, keeps it with the others, and puts it into a folder where
// its unit reads it, under its name.
func (s ownSecret) place(secretsPath, dir string) error {
	made, err := makeSecrets(secretsPath, []bundle.Secret{s.Secret}, false)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name, text := s.Name, made[s.Name].Value
	if s.digest {
		digest := sha256.Sum256([]byte(text))
		name, text = name+digestSuffix, hex.EncodeToString(digest[:])
	}
	return bundle.WriteFile(filepath.Join(dir, name), func(f *os.File) error {
		if err := readableBy(f, s.group); err != nil {
			return err
		}
		_, err := f.WriteString(text + "\n")
		return err
	})
}

func writeSecrets(path string, secrets map[string]Secret) error {
	data, err := json.MarshalIndent(secrets, "", " ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
		return err
	}
	return bundle.WriteSecret(path, func(f *os.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// newSecret makes up a value. Every character is as likely as any other: bytes beyond
// the last whole alphabet are thrown away.
func newSecret() string {
	const usable = 256 - 256%len(secretAlphabet)
	var value []byte
	var b [1]byte
	for len(value) < secretLength {
		rand.Read(b[:]) // never fails
		if int(b[0]) < usable {
			value = append(value, secretAlphabet[int(b[0])%len(secretAlphabet)])
		}
	}
	return string(value)
}

// setKey sets one key of a Secret where the object has it, and else where it has others.
// The API server prefers stringData, so it comes first.
func setKey(o *unstructured.Unstructured, key, value string) error {
	data, err := fields(o, "data")
	if err != nil {
		return err
	}
	text, err := fields(o, "stringData")
	if err != nil {
		return err
	}
	_, inData := data[key]
	_, inText := text[key]
	if inText || !inData && len(data) == 0 && len(text) > 0 {
		text[key] = value
		return nil
	}
	if data == nil {
		data = map[string]any{}
		o.Object["data"] = data
	}
	data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	return nil
}

// fields are the keys of a part of a Secret; nil if it has no such part.
func fields(o *unstructured.Unstructured, part string) (map[string]any, error) {
	m, ok := o.Object[part].(map[string]any)
	if !ok && o.Object[part] != nil {
		return nil, fmt.Errorf("%s is not a map", part) // what it is may be a secret
	}
	return m, nil
}
