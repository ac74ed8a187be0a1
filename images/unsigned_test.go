package images

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"atoll/bundle"
)

// signer is a key of gpg in a home of its own.
type signer struct{ home, public string }

func newSigner(t *testing.T) *signer {
	t.Helper()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip(err)
	}
	home, err := os.MkdirTemp("", "gpg") // a short path: that of a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{home: home, public: filepath.Join(home, "public.gpg")}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	s.gpg(t, "--passphrase", "", "--quick-gen-key", "lab <lab@example.test>", "rsa2048", "sign", "never")
	s.gpg(t, "--output", s.public, "--export")
	return s
}

func (s *signer) gpg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("gpg", append([]string{"--homedir", s.home, "--batch", "--yes", "--quiet"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("gpg: %v\n%s", err, out)
	}
}

// sign signs an archive in both ways that apt knows.
func (s *signer) sign(t *testing.T, archive string) {
	t.Helper()
	release := archive + "/dists/bookworm/Release"
	s.gpg(t, "--clearsign", "--output", filepath.Dir(release)+"/InRelease", release)
	s.gpg(t, "--armor", "--detach-sign", "--output", release+".gpg", release)
}

func serveFolder(t *testing.T, dir string) string {
	t.Helper()
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(srv.Close)
	return srv.URL
}

// lockApp locks the package app and tells which packages are unauthenticated.
func lockApp(sources ...string) (unauthenticated string, err error) {
	got, _, err := ResolvePackages(context.Background(), bundle.Base{Suite: "bookworm", Sources: sources}, "amd64", []string{"app"}, nil)
	var names []string
	for _, p := range got {
		if p.Unauthenticated {
			names = append(names, p.Name)
		}
	}
	return strings.Join(names, " "), err
}

// TestSignatures has a real archive that changes, and a real apt.
func TestSignatures(t *testing.T) {
	ours, theirs := newSigner(t), newSigner(t)
	dir := archive(t)
	url := serveFolder(t, dir)
	withKey := "deb [signed-by=" + ours.public + "] " + url + " bookworm main"
	const all = "app base lib required"
	refused := func(t *testing.T, sources ...string) {
		t.Helper()
		if names, err := lockApp(sources...); !errors.Is(err, bundle.ErrUnauthenticated) {
			t.Errorf("locked, with %q unauthenticated: %v", names, err)
		}
	}
	taken := func(t *testing.T, want string, sources ...string) {
		t.Helper()
		if names, err := lockApp(sources...); err != nil || names != want {
			t.Errorf("%q is unauthenticated, want %q; %v", names, want, err)
		}
	}
	machines := map[string]string{
		"plain": "",
		"careless": `Acquire::AllowInsecureRepositories "true"; Acquire::AllowWeakRepositories "true"; Acquire::AllowDowngradeToInsecureRepositories "true";
			APT::Get::AllowUnauthenticated "true"; Acquire::gpgv::Options { "--ignore-time-conflict"; "--keyring"; "` + theirs.public + `"; }; Acquire::Check-Valid-Until "false";`,
		"careless in other letters": `acquire { allowinsecurerepositories "yes"; ALLOWWEAKREPOSITORIES "1"; };`,
	}
	for name, conf := range machines {
		t.Run("machine "+name, func(t *testing.T) {
			aptMachine(t, conf, "")
			os.Remove(dir + "/dists/bookworm/InRelease")
			os.Remove(dir + "/dists/bookworm/Release.gpg")
			refused(t, withKey)
			refused(t, "deb "+url+" bookworm main")
			theirs.sign(t, dir)
			refused(t, withKey)
			ours.sign(t, dir)
			taken(t, "", withKey)
			taken(t, all, strings.Replace(withKey, "[", "[trusted=yes ", 1))
			// It was signed, and is no more.
			os.Remove(dir + "/dists/bookworm/InRelease")
			os.Remove(dir + "/dists/bookworm/Release.gpg")
			refused(t, withKey)
			taken(t, all, "deb [trusted=yes] "+url+" bookworm main")
		})
	}
	aptMachine(t, machines["careless"], "")
	for _, option := range []string{"allow-insecure=yes", "allow-weak=yes", "allow-downgrade-to-insecure=yes", "allow-insecure+=yes", "Allow-Insecure=yes"} {
		refused(t, strings.Replace(withKey, "[", "["+option+" ", 1))
	}
	// A list of packages that is not the signed one.
	ours.sign(t, dir)
	lists := dir + "/dists/bookworm/main/binary-amd64/Packages"
	data, err := os.ReadFile(lists)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lists, []byte(strings.Replace(string(data), "Version: 1.5", "Version: 1.6", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if names, err := lockApp(withKey); err == nil {
		t.Errorf("an index that is not the signed one was taken (%s)", names)
	}
}

// TestSignedAndTrusted: a source that is trusted does not vouch for another, nor the other
// way round.
func TestSignedAndTrusted(t *testing.T) {
	aptMachine(t, "", "")
	key := newSigner(t)
	root := t.TempDir()
	for name, dir := range map[string]string{"signed": archive(t), "pile": archive(t)} {
		if err := os.Rename(dir, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	key.sign(t, root+"/signed")
	url := serveFolder(t, root)
	signed, pile := "deb [signed-by="+key.public+"] "+url+"/signed bookworm main", "deb [trusted=yes] "+url+"/pile bookworm main"
	base := bundle.Base{Suite: "bookworm", Sources: []string{signed, pile}}
	got, _, err := ResolvePackages(context.Background(), base, "amd64", []string{"app"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	repos := []aptRepository{{uri: url + "/signed/", label: "Lab"}, {uri: url + "/", label: "Pile", unauthenticated: true}}
	for _, p := range got {
		if p.Unauthenticated { // both have the same packages, and apt takes those of the first source
			t.Errorf("%s is unauthenticated", p.Name)
		}
		// An archive that is trusted may name a file of one that is signed.
		line := "'" + url + "/signed/" + p.Path + "' " + p.Name + "_1_amd64.deb 5 SHA256:" + p.Digest.Hex
		if q, err := parseURI(line, "amd64", repos); err != nil || !q.Unauthenticated || q.Archive != "Lab" {
			t.Errorf("%s is %+v, %v", line, q, err)
		}
	}
	base.Sources = []string{pile, signed}
	if got, _, err = ResolvePackages(context.Background(), base, "amd64", []string{"app"}, nil); err != nil || !got[0].Unauthenticated {
		t.Errorf("of the trusted source: %+v, %v", got, err)
	}
	// The same archive twice: apt trusts both, or none.
	base.Sources = []string{strings.Replace(pile, "pile", "signed", 1), signed}
	if got, _, err = ResolvePackages(context.Background(), base, "amd64", []string{"app"}, nil); err == nil && !got[0].Unauthenticated {
		t.Error("a trusted source is taken for a signed one")
	}
}

// TestCarelessMachine has sources of a machine for which no key need vouch.
func TestCarelessMachine(t *testing.T) {
	key := newSigner(t)
	for _, tc := range []struct{ file, content, want string }{
		{"sources.list", "# x\ndeb [trusted=yes] http://a.test/ bookworm main\n", "sources.list:2: trusted=yes is not taken"},
		{"sources.list", "deb [ allow-insecure=yes ] http://a.test/ bookworm main\n", "sources.list:1: option allow-insecure is not taken"},
		{"sources.list.d/a.list", "deb [allow-weak=yes] http://a.test/ bookworm-security main\n", "a.list:1: option allow-weak"},
		{"sources.list.d/a.sources", "\n\nTypes: deb\nURIs: http://a.test/\nSuites: bookworm\nTrusted: yes\n", "a.sources:3: field trusted"},
		{"sources.list.d/a.sources", "types: deb\nuris: http://a.test/\nsuites: bookworm\nALLOW-INSECURE:\n yes\n", "a.sources:1: field allow-insecure"},
		{"sources.list.d/a.sources", "Types: deb\nURIs: http://a.test/\nSuites: bookworm\nAllow-Downgrade-To-Insecure: true\n", "field allow-downgrade-to-insecure"},
		{"sources.list.d/a.sources", "Types: deb\nURIs: mirror+file:/etc/mirrors\nSuites: bookworm\n", "is not an archive's URL of a kind"},
		{"sources.list.d/a.sources", "Types: deb\nURIs: http://u:s3cret@a.test/\nSuites: bookworm\n", "/etc/apt/auth.conf.d/NAME.conf"},
	} {
		dir, a := t.TempDir(), &apt{dir: t.TempDir()}
		for _, d := range []string{dir + "/sources.list.d", a.dir + "/sources"} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, tc.file), []byte(tc.content), 0o644); err != nil {
			t.Fatal(err)
		}
		err := a.copySources(dir, "bookworm")
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: got %v, want %q", tc.content, err, tc.want)
		}
		if unsigned := strings.Contains(tc.want, "trusted") || strings.Contains(tc.want, "allow-"); unsigned != errors.Is(err, bundle.ErrUnauthenticated) {
			t.Errorf("%q: got %v", tc.content, err)
		}
	}

	// A key that is in the file itself, as apt-add-repository puts it there.
	dir := archive(t)
	key.sign(t, dir)
	armored := filepath.Join(t.TempDir(), "key.asc")
	key.gpg(t, "--armor", "--output", armored, "--export")
	data, err := os.ReadFile(armored)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(string(data), "\n\n", "\n.\n")), "\n", "\n ")
	etc := t.TempDir()
	if err := os.Mkdir(etc+"/sources.list.d", 0o755); err != nil {
		t.Fatal(err)
	}
	text := "Types: deb deb-src\nURIs: " + serveFolder(t, dir) + "\nSuites: bookworm\nComponents: main\nSigned-By:\n " + lines + "\n"
	if err := os.WriteFile(etc+"/sources.list.d/lab.sources", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	aptMachine(t, "", "")
	a, err := newApt(context.Background(), bundle.Base{Suite: "bookworm", Sources: []string{"deb file:/none bookworm main"}}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	if err := errors.Join(os.Remove(a.dir+"/"+sourcesList), a.copySources(etc, "bookworm")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.run(context.Background(), "apt-get", "update", "-q"); err != nil {
		t.Error(err)
	}
	repos, err := a.repositories(context.Background(), true)
	if err != nil || len(repos) != 1 || repos[0].unauthenticated || repos[0].label != "Lab Archive" {
		t.Errorf("got %+v, %v", repos, err)
	}
}

// FuzzAptSettings: of what a machine's files say, only what is about reaching archives, and
// sources for which a key must vouch, come through.
func FuzzAptSettings(f *testing.F) {
	f.Add("Acquire::http::Proxy http://p:1\nAcquire::AllowInsecureRepositories true\n", "machine example.org login apt password debian", "deb [trusted=yes] http://a.test bookworm main")
	f.Add("Acquire::https::deb.test::Verify-Peer false\nDir::Etc::netrc /x\nAcquire::gpgv::Options:: --keyring\n", "machine\nlogin", "Types: deb\nURIs: http://a.test\nSuites: bookworm\nTrusted: yes\n")
	f.Add("Acquire::http::Proxy \";\nAPT::Get::AllowUnauthenticated \"1\n", "machine a login b machine", "deb [arch=amd64 signed-by=/k] http://a.test bookworm main # x")
	f.Add("Acquire::http::Proxy::a::b x\\\r\n", "", "Types: deb\nURIs: file:/a\nSuites: bookworm\nSigned-By:\n -----BEGIN\n .\n x\nallow-insecure: no\n")
	f.Fuzz(func(t *testing.T, dump, logins, sources string) {
		for line := range strings.Lines(copySettings(dump)) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\";\n"), " \"")
			if !ok || !reaching.MatchString(name) || strings.ContainsAny(value, "\"\n\\") || strings.Contains(strings.ToLower(name), "allow") && !strings.HasSuffix(strings.ToLower(name), "::allowredirect") {
				t.Errorf("%q became %q", dump, line)
			}
		}
		for _, l := range parseLogins(logins) {
			if strings.ContainsAny(l.machine+l.user+l.password, " \t\n") {
				t.Errorf("%q became %+v", logins, l)
			}
		}
		list, err := oneLineSources("x", sources, "bookworm")
		if low := strings.ToLower(list); err == nil && (strings.Contains(low, "trusted") || strings.Contains(low, "allow-insecure=")) {
			t.Errorf("%q became %q", sources, list)
		}
		for line := range strings.Lines(list) {
			s, err := bundle.ParseAptSource(line)
			if err != nil || s.String()+"\n" != line || s.Trusted || !ofSuite(s.Suite(), "bookworm") {
				t.Errorf("%q became %q, which is %+v: %v", sources, line, s, err)
			}
		}
		stanzas, err := deb822Sources("x", sources, "bookworm")
		if err != nil {
			return
		}
		for _, s := range parseStanzas(stanzas) {
			if s.fields["types"] != "deb" || s.fields["trusted"] != "" || s.fields["allow-insecure"] != "" || s.check() != nil {
				t.Errorf("%q became %q", sources, stanzas)
			}
		}
		if again, err := deb822Sources("x", stanzas, "bookworm"); err != nil || again != stanzas {
			t.Errorf("%q became %q, and that %q, %v", sources, stanzas, again, err)
		}
	})
}
