package pull

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

const defaultParallel = 3 // layers of one image at a time (guest-protocol 14.1)

// Config is what a [Puller] needs. Store, Policy and Registry are required in
// the sense that a nil Store is an error and a nil Policy refuses every image.
type Config struct {
	Store    *store.Store
	Registry registry.Config
	// Client returns the client that reaches registries, in place of one for
	// Registry. It is asked on every pull, so that credentials and mirrors may
	// change between two.
	Client func(ctx context.Context) (*registry.Client, error)
	// Policy returns the image policy in force; it is asked on every pull. A
	// nil policy refuses with image_policy_missing.
	Policy func(ctx context.Context) (*trust.Policy, error)
	// Keys resolves a keyPath of the policy to PEM bytes.
	Keys func(ctx context.Context, keyPath string) ([]byte, error)
	// Lookaside says where signatures of signedBy lie; nil: nowhere, so that
	// requirements of that type refuse. Where it gives no client for them, they are
	// reached like the registries of the same pull.
	Lookaside func(ctx context.Context) (*trust.Lookaside, error)
	Unwrapper crypt.KeyUnwrapper // nil: encrypted layers are refused
	Logger    *slog.Logger       // nil: silent
	Platform  registry.Platform  // zero: the native one
	Parallel  int                // layers at a time; 0: 3
	Limits    unpack.Limits
	// Progress is told of every pull of this Puller; nil: nobody is. It is called
	// from several goroutines at once, in the middle of the work: it must not block.
	Progress func(Event)
	// Keep leaves layers that were verified in the store when another one of the
	// image fails, for the next attempt.
	Keep bool
	// LibraryGzip reads gzip layers with github.com/klauspost/compress, not with
	// image/internal/inflate (docs/adr/0024).
	LibraryGzip bool
}

// A Puller pulls images into one store. It is safe for concurrent use.
type Puller struct {
	cfg     Config
	client  *registry.Client
	log     *slog.Logger
	flights flights
	windows *windows
	blocks  blocks
	pulls   atomic.Int64
}

// enter keeps the memory that layers hand on to each other until leave.
func (p *Puller) enter() {
	p.windows.enter()
	p.blocks.enter()
}

func (p *Puller) leave() {
	p.windows.leave()
	p.blocks.leave()
}

// New checks the configuration.
func New(c Config) (*Puller, error) {
	if c.Store == nil {
		return nil, errors.New("pull: a store is needed")
	}
	return newPuller(c)
}

func newPuller(c Config) (*Puller, error) {
	client, err := registry.NewClient(c.Registry)
	if err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Platform == (registry.Platform{}) {
		c.Platform = registry.Native()
	}
	if c.Parallel <= 0 {
		c.Parallel = defaultParallel
	}
	return &Puller{cfg: c, client: client, log: c.Logger, windows: newWindows()}, nil
}

// Pull fetches, judges, verifies, decrypts and unpacks an image. Every error
// is a [*fault.Fault]; its private cause is a [*trust.Rejection], a
// [*LayerError] or the error of the registry. After an error the store is as
// it was before. The caller owes the image a Release.
func (p *Puller) Pull(ctx context.Context, ref string) (*Image, error) {
	progress := &progress{tell: p.cfg.Progress, pull: p.pulls.Add(1), ref: ref}
	img, err := p.pull(ctx, ref, progress)
	if err != nil {
		return nil, p.refuse(ctx, ref, progress, err)
	}
	p.log.InfoContext(ctx, "image pulled", slog.String("reference", img.Reference), slog.String("digest", img.Digest),
		slog.String("scope", img.Verdict.Scope), slog.Bool("waived", img.Verdict.Waived))
	return img, nil
}

// refuse tells that there will be no image.
func (p *Puller) refuse(ctx context.Context, ref string, progress *progress, err error) error {
	code := fault.Internal
	if interrupted(err) {
		code = fault.ImageUnavailable
	}
	f := fault.New(code, err)
	p.log.WarnContext(ctx, "image refused", slog.String("reference", ref), slog.Any("fault", f))
	progress.image(Event{Phase: PhaseFailed, Err: f})
	return f
}

// judged is an image that the policy has accepted.
type judged struct {
	ref      registry.Reference
	repo     *registry.Repository
	resolved *registry.Resolved
	verdict  trust.Verdict
}

// judge finds the image and holds it against the policy in force.
func (p *Puller) judge(ctx context.Context, name string, progress *progress) (*judged, error) {
	ref, err := registry.ParseReference(name)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	progress.ref = ref.String()
	progress.image(Event{Phase: PhaseResolving})
	policy, err := p.policy(ctx)
	if err != nil {
		return nil, err
	}
	client := p.client
	if p.cfg.Client != nil {
		if client, err = p.cfg.Client(ctx); err != nil {
			return nil, fault.New(fault.ImageUnavailable, err)
		}
	}
	repo, err := client.Repository(ref)
	if errors.Is(err, registry.ErrBlocked) {
		return nil, fault.New(fault.ImageBlocked, err)
	}
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	resolved, err := registry.Resolve(ctx, repo, ref.Version(), p.cfg.Platform)
	if err != nil {
		return nil, resolveFault(err)
	}
	progress.image(Event{Phase: PhaseJudging, Digest: resolved.Manifest.Digest})
	verdict, err := policy.Evaluate(ctx, trust.SubjectOf(ref, resolved), trust.Evidence{Signatures: repo, Keys: p.cfg.Keys, Lookaside: p.lookaside(client)})
	if err != nil {
		return nil, err
	}
	return &judged{ref: ref, repo: repo, resolved: resolved, verdict: verdict}, nil
}

func (p *Puller) pull(ctx context.Context, name string, progress *progress) (*Image, error) {
	i, err := p.judge(ctx, name, progress)
	if err != nil {
		return nil, err
	}
	total := progress.accepted(i.resolved)
	config, plans, err := p.plan(ctx, i.repo, i.resolved)
	if err != nil {
		return nil, err
	}
	job := &job{puller: p, src: i.repo, progress: progress}
	layers, err := job.layers(i.named(ctx), plans)
	if err != nil {
		return nil, err
	}
	progress.image(Event{Phase: PhasePulled, Digest: i.resolved.Manifest.Digest, Bytes: job.received.Load(), Total: total})
	return &Image{
		Reference: i.ref.String(), Digest: i.resolved.Manifest.Digest.String(), Root: i.resolved.Root.Digest.String(),
		Config: config, Verdict: i.verdict, store: p.cfg.Store, layers: layers,
	}, nil
}

// named is a context for the image's keys.
func (i *judged) named(ctx context.Context) context.Context {
	return crypt.WithImage(ctx, crypt.Image{Digest: i.resolved.Manifest.Digest.String(), Reference: i.ref.String()})
}

func (p *Puller) policy(ctx context.Context) (*trust.Policy, error) {
	if p.cfg.Policy == nil {
		return nil, fault.Newf(fault.ImagePolicyMissing, "no image policy is configured")
	}
	policy, err := p.cfg.Policy(ctx)
	if err != nil {
		return nil, fault.New(fault.ImagePolicyMissing, err)
	}
	if policy == nil {
		return nil, fault.Newf(fault.ImagePolicyMissing, "no image policy is in force")
	}
	return policy, nil
}

// lookaside completes what the configuration says about lookaside servers.
func (p *Puller) lookaside(client *registry.Client) func(context.Context) (*trust.Lookaside, error) {
	if p.cfg.Lookaside == nil {
		return nil
	}
	return func(ctx context.Context) (*trust.Lookaside, error) {
		aside, err := p.cfg.Lookaside(ctx)
		if err == nil && aside != nil && aside.Client == nil {
			aside.Client = trust.NewLookasideClient(client.Transport())
		}
		return aside, err
	}
}

// configDoc is the image config. ocispec.Image would do, but its platform
// members are inlined and its history is of no use.
type configDoc struct {
	OS     string              `json:"os"`
	Config ocispec.ImageConfig `json:"config"`
	RootFS struct {
		Type    string          `json:"type"`
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// plan reads the config and settles, before any key or layer is asked for,
// whether the image can be had at all.
func (p *Puller) plan(ctx context.Context, src registry.Source, r *registry.Resolved) (ocispec.ImageConfig, []layerPlan, error) {
	var doc configDoc
	err := registry.ReadConfig(ctx, src, r.Image.Config, &doc)
	if err != nil {
		return doc.Config, nil, resolveFault(err)
	}
	layers, ids := r.Image.Layers, doc.RootFS.DiffIDs
	switch {
	case doc.OS != "linux":
		return doc.Config, nil, fault.Newf(fault.ImageMalformed, "the image is for %.40q, not linux", doc.OS)
	case doc.RootFS.Type != "layers":
		return doc.Config, nil, fault.Newf(fault.ImageMalformed, "the image's rootfs is of type %.40q", doc.RootFS.Type)
	case len(layers) != len(ids):
		return doc.Config, nil, fault.Newf(fault.ImageMalformed, "the manifest has %d layers, the config %d diffIDs", len(layers), len(ids))
	case len(layers) == 0 || len(layers) > store.MaxLayers:
		return doc.Config, nil, fault.Newf(fault.ImageMalformed, "the image has %d layers: 1 to %d are possible", len(layers), store.MaxLayers)
	}
	plans := make([]layerPlan, len(layers))
	beside := &referred{src: src, subject: r.Manifest.Digest}
	for i, desc := range layers {
		if plans[i], err = newLayerPlan(i, desc, ids[i]); err != nil {
			return doc.Config, nil, err
		}
		plans[i].referred = beside
	}
	return doc.Config, plans, nil
}
