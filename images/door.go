package images

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/singleflight"
)

// door is how to log in at one registry. All its repositories share it.
type door struct {
	base *url.URL     // scheme and host
	http *http.Client // without a login

	asking singleflight.Group
	mu     sync.Mutex
	known  bool
	offers []challenge
	proofs map[authn.AuthConfig]*proof
}

// challenges asks the registry, once, how to log in. None means that it need not be. All
// that wait for an answer share it, and a failure too.
func (d *door) challenges(ctx context.Context) ([]challenge, error) {
	d.mu.Lock()
	known, offers := d.known, d.offers
	d.mu.Unlock()
	if known {
		return offers, nil
	}
	_, err, _ := d.asking.Do("", func() (any, error) { return nil, d.ask(ctx) })
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.offers, nil
}

func (d *door) ask(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base.JoinPath("v2/").String(), nil)
	if err != nil {
		return err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		hideQuery(err) // here, where nobody shares it yet
		return err
	}
	drain(resp)
	d.mu.Lock()
	defer d.mu.Unlock()
	if resp.StatusCode == http.StatusUnauthorized {
		d.offers = challenges(resp.Header)
	}
	d.known = true // whatever else it said: the repository's own answers count
	return nil
}

// proof gives what is known of a credential; nil if it is none.
func (d *door) proof(auth *authn.AuthConfig) *proof {
	if *auth == (authn.AuthConfig{}) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.proofs[*auth]
	if p == nil {
		if d.proofs == nil {
			d.proofs = map[authn.AuthConfig]*proof{}
		}
		p = &proof{}
		d.proofs[*auth] = p
	}
	return p
}

// proof is whether a credential is good. Until that is known it is shown by one request at
// a time, and one that is refused is not shown again: a wrong password locks accounts.
type proof struct {
	mu      sync.Mutex
	good    bool
	refused error
}

// show sends what shows the credential. Its error is a 401 of [transport.Error] if it is
// refused, and none only if it is good. A nil proof has nothing to prove.
func (p *proof) show(send func() error) error {
	if p == nil {
		return send()
	}
	p.mu.Lock()
	good, refused := p.good, p.refused
	if good || refused != nil {
		p.mu.Unlock()
		if refused != nil {
			return refused
		}
		return send()
	}
	defer p.mu.Unlock()
	err := send()
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusUnauthorized {
		p.refused = err
	}
	p.good = err == nil
	return err
}
