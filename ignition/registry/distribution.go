package registry

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/sirupsen/logrus"
)

// driverName is the name of [store] to Distribution, which makes drivers by their names.
const driverName = "atoll"

func init() { factory.Register(driverName, storeFactory{}) }

// storeFactory hands on the store among the parameters.
type storeFactory struct{}

func (storeFactory) Create(_ context.Context, parameters map[string]any) (driver.StorageDriver, error) {
	s, ok := parameters["store"].(*store)
	if !ok {
		return nil, fmt.Errorf("the driver %s has no store", driverName)
	}
	return s, nil
}

// maxListed bounds the lists of repositories and tags in one answer.
const maxListed = 1000

// newApp is Distribution's server over a store. It asks nobody who a client is. It
// caches nothing, since a collection in another process would not be noticed. A manifest names
// only blobs that are there; an index may name images that are not, as those of the bundle do.
func newApp(ctx context.Context, s *store, log *slog.Logger) http.Handler {
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			driverName:    {"store": s},
			"delete":      {"enabled": true},
			"redirect":    {"disable": true},
			"maintenance": {"uploadpurging": map[any]any{"enabled": true, "age": Age.String(), "interval": "1h", "dryrun": false}},
		},
		Catalog: configuration.Catalog{MaxEntries: maxListed},
		Tags:    configuration.Tags{MaxTags: maxListed},
	}
	config.HTTP.Secret = rand.Text() // of uploads, which end with this process
	config.HTTP.RelativeURLs = true
	config.Validation.Manifests.Indexes.Platforms = "none"
	redirectLog(log)
	return handlers.NewApp(ctx, config)
}

// redirectLog has what Distribution fails at told to log. Its own log is one for the whole
// process, and has lines for every request and every deleted file.
func redirectLog(log *slog.Logger) {
	logrus.SetOutput(io.Discard)
	logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{logrus.ErrorLevel: {logHook{log}}})
}

// logHook hands on what Distribution could not do. What a client asked for and is not there is
// none of that.
type logHook struct{ log *slog.Logger }

func (logHook) Levels() []logrus.Level { return []logrus.Level{logrus.ErrorLevel} }

func (h logHook) Fire(e *logrus.Entry) error {
	if code := e.Data["err.code"]; code != nil && fmt.Sprint(code) != "unknown" {
		return nil
	}
	h.log.Error("registry: "+e.Message, "repository", e.Data["vars.name"], "detail", e.Data["err.detail"])
	return nil
}
