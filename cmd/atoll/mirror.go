package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/images"
)

type mirrorOptions struct {
	projectOptions
	remoteOptions
	json bool
}

// reachHelp documents what the network's settings are taken from.
const reachHelp = `
REACH
  logins     $REGISTRY_AUTH_FILE, docker's config.json ($DOCKER_CONFIG or ~/.docker),
             podman's auth.json, and their helpers; apt's auth.conf for packages
  certs      certs.d/HOST below ~/.config/containers, /etc/containers and /etc/docker: *.crt
             for authorities, NAME.cert and NAME.key for a client; $SSL_CERT_FILE
  proxies    $HTTPS_PROXY, $HTTP_PROXY, $NO_PROXY; apt's own for packages
  mirrors    --mirror docker.io=https://HOST/PATH, or http:// for one without TLS
  plain http registries on this machine without certs, and those of --plain-http
`

func newMirrorCommand(e *env) *cobra.Command {
	var o mirrorOptions
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Fetch what the lock names into the store",
		Long: `Mirror fetches every image, file and package of the lock by its digest into the
store. What is there and whole is not fetched again, so a run that was cut short
goes on where it was, inside a large blob too. The stack's sources come first, for they
say what else there is. If something cannot be fetched, all else is, and what is
incomplete is told with who said what.
` + reachHelp + eventsHelp + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runMirror(cmd.Context(), e, o) },
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.remoteOptions.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&o.verify, "verify", false, "compute the digest of all that the lock names and the store has once more, and fetch again what is corrupt")
	cmd.Flags().BoolVar(&o.json, "json", false, "write events to stdout, one JSON object per line")
	return cmd
}

func runMirror(ctx context.Context, e *env, o mirrorOptions) error {
	var ev *events
	if o.json {
		ev = newEvents(e.stdout)
	}
	err := mirrorLock(ctx, e, o, ev)
	return errors.Join(err, ev.end(err))
}

func mirrorLock(ctx context.Context, e *env, o mirrorOptions, ev *events) error {
	p, err := o.load()
	if err != nil {
		return err
	}
	l, err := p.readLock()
	if err != nil {
		return err
	}
	return p.mirrorAll(ctx, e, l, o.remoteOptions, ev)
}

// mirrorAll fills the store, sources included: the rest is known once they are there.
func (p *project) mirrorAll(ctx context.Context, e *env, l *bundle.Lock, o remoteOptions, ev *events) error {
	if err := p.mirrorSources(ctx, e, l, o); err != nil {
		return err
	}
	if err := p.checkLock(ctx, l); err != nil {
		return err
	}
	return p.mirror(ctx, e, l, o, ev)
}

// mirrorSources fetches the sources of the lock that the store lacks.
func (p *project) mirrorSources(ctx context.Context, e *env, l *bundle.Lock, o remoteOptions) error {
	opts := o.options(e)
	if err := images.CheckSources(opts, p.stack.Sources); err != nil {
		return usageError{err}
	}
	var names []string
	for _, im := range l.Images {
		names = append(names, cmp.Or(im.From, im.Reference))
	}
	p.warnOfNeedless(e, opts, names)
	if len(l.Sources) == 0 {
		return nil
	}
	s, err := p.store()
	if err != nil {
		return err
	}
	if err := e.saySources(ctx, p.stack.Sources, l.Sources, s, opts); err != nil {
		return err
	}
	return e.explainIncomplete(images.MirrorSources(ctx, p.stack.Sources, l, s, opts))
}

// mirror fills the store with all but the sources, which must be there. ev may be nil.
func (p *project) mirror(ctx context.Context, e *env, l *bundle.Lock, o remoteOptions, ev *events) error {
	s, err := p.store()
	if err != nil {
		return err
	}
	s.Log = e.log
	step := e.progress("mirror")
	opts := o.options(e)
	hosts, err := images.Budget(ctx, p.def, l, s, opts)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		e.say("mirror: %s", h)
	}
	opts.Reading = func(done, total int) {
		ev.before("reading", time.Now(), int64(done), int64(total))
		step.reading(done, total)
	}
	opts.Checking = func(done, total int64) {
		ev.before("checking", time.Now(), done, total)
		step.named("checking the store", done, total)
	}
	told := false
	opts.Progress = func(pr images.Progress) {
		ev.progress(time.Now(), pr)
		if !told {
			told = true
			for _, h := range pr.Hosts {
				e.say("mirror: %d blobs, %s from %s", h.Blobs, size(h.Bytes), h.Host)
			}
		}
		if pr.Blobs > 0 {
			step.show(pr.Done, pr.Total, pr.Moving)
		}
	}
	err = images.Mirror(ctx, p.def, l, s, opts)
	step.end(err, "%d images, %d files, %d packages are in the store", len(l.Images), len(l.Files), len(l.Packages))
	return e.explainIncomplete(err)
}
