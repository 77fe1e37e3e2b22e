// Package hub is where the guest's errands to the broker meet: resources for
// workloads, the image policy and its keys, the keys of encrypted layers, and
// the refusals that the operator should learn of but the host must not.
//
// One attested client serves all of them, so a pod costs one handshake however
// many layers it has. What comes out of the hub is a secret for a workload, a
// mounted image, or a *fault.Fault whose ticket the broker (or, where it cannot
// be told, the local journal) explains.
//
// A Hub is safe for concurrent use. It holds no lock while it talks to a broker
// or a registry, so that one slow container never holds up another.
package hub

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"sync/atomic"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Config is what a Hub works with.
type Config struct {
	// Broker may be nil: then nothing can be fetched, and refusals go to the
	// journal.
	Broker Broker
	// Attester may be nil: then workloads get no evidence.
	Attester measure.Attester
	// Devices obtain the evidence of what is attached to the guest, each of
	// another platform.
	Devices []measure.Attester
	// InitData is the digest of the init-data document that the platform was found
	// bound to when the agent started; nil for none.
	InitData []byte
	// Events records what happens in the guest; nil records nothing.
	Events Events
	// ImageDir holds layers and overlays. It is made if it is not there.
	ImageDir string
	// Store says what ImageDir lies on, see [store.Open]; none: where it is.
	Store []store.Option
	// ImagePolicyURI locates policy.json: kbs://, file:// or an absolute path.
	// It wins over ImagePolicyInline (guest-protocol 14.1). With neither, every
	// pull is refused.
	ImagePolicyURI    string
	ImagePolicyInline []byte
	// LookasideURI locates the registries.d document that says where GPG
	// signatures lie; it wins over LookasideInline. With neither, requirements
	// of signedBy refuse.
	LookasideURI    string
	LookasideInline []byte
	Registry        registry.Config
	// RegistriesURI locates registries.conf; it counts if Registry.Registries is
	// nil. AuthURI locates auth.json. What they locate is fetched for every pull,
	// and so are the client certificates, so that what an owner changes at the
	// broker counts for the next container.
	RegistriesURI  string
	AuthURI        string
	Certificates   map[string]string // location of a client certificate with its key, by registry
	ImageKeys      []string          // locations of private keys that open layers
	ParallelLayers int               // see pull.Config
	LibraryGzip    bool              // see pull.Config
	Sealed         Sealed
	Tokens         Tokens
	Progress       func(pull.Event) // see pull.Config
	// Journal keeps refusals that the broker could not be told. It holds causes,
	// so the host must not be able to read it. See [OpenJournal].
	Journal io.Writer
	Logger  *slog.Logger
}

// Hub joins the broker, the registry and the image store.
type Hub struct {
	broker   Broker // nil without one
	attester measure.Attester
	devices  []measure.Attester
	initData []byte       // digest; nil without
	events   Events       // nil without
	recorded atomic.Int64 // bytes of workloads' events
	images   atomic.Pointer[imageStore]
	open     func(dir string, options ...store.Option) (*imageStore, error)
	pairs    keyPairs
	refuser  *Refuser
	log      *slog.Logger
	sealed   Sealed
	services *kms.Opener // of sealed secrets that are not the broker's
	tokens   Tokens
	bundles  bundles
}

// Broker is what the hub asks of an attested client, or of several.
type Broker interface {
	Resource(ctx context.Context, uri string) (secret.Bytes, error)
	WorkloadToken(ctx context.Context) (secret.Bytes, error)
	TokenWithKey(ctx context.Context) (secret.Bytes, error)
	// Renew attests anew, if this guest has attested; Forget drops tokens and keys.
	Renew(ctx context.Context) error
	Forget()
	Reporter
}

// New opens the image store and returns a hub.
func New(cfg Config) (*Hub, error) {
	switch {
	case cfg.ImageDir == "":
		return nil, errors.New("hub: no image directory")
	case cfg.Journal == nil:
		return nil, errors.New("hub: no journal")
	case cfg.Logger == nil:
		return nil, errors.New("hub: no logger")
	}
	h := &Hub{
		broker:   cfg.Broker,
		attester: cfg.Attester,
		devices:  cfg.Devices,
		initData: cfg.InitData,
		events:   cfg.Events,
		refuser:  NewRefuser(cfg.Broker, cfg.Journal, cfg.Logger),
		log:      cfg.Logger,
		sealed:   cfg.Sealed,
		tokens:   cfg.Tokens,
	}
	h.services = kms.New(kms.Config{Fetch: h.fetchForWorkload, Files: cfg.Sealed.Credentials})
	h.pairs = keyPairs{uris: cfg.ImageKeys, from: locations{fetch: h.fetch, code: fault.ImageKey}}
	policy := policySource{uri: cfg.ImagePolicyURI, inline: cfg.ImagePolicyInline, from: locations{fetch: h.fetch, code: fault.PolicyError}}
	aside := lookasideSource{uri: cfg.LookasideURI, inline: cfg.LookasideInline, read: policy.from.public, plain: cfg.Registry.InsecureHTTPHosts}
	reg := &registrySource{cfg: cfg.Registry, conf: cfg.RegistriesURI, auth: cfg.AuthURI, certs: cfg.Certificates,
		from: locations{fetch: h.fetch, code: fault.ImageUnavailable}}
	h.open = func(dir string, options ...store.Option) (*imageStore, error) {
		return openImages(dir, options, pull.Config{
			Registry: cfg.Registry, Client: reg.client, Policy: policy.load, Keys: policy.key, Lookaside: aside.load, Unwrapper: unwrapper{},
			Parallel: cfg.ParallelLayers, LibraryGzip: cfg.LibraryGzip, Progress: cfg.Progress,
			// No logger: what the puller tells names the policy's scope, and the
			// host reads the guest's console.
		})
	}
	first, err := h.open(cfg.ImageDir, cfg.Store...)
	if err != nil {
		return nil, err
	}
	h.images.Store(first)
	return h, nil
}

// Resource fetches "kbs:///repo/type/tag" from the broker. The caller owns the
// secret. Errors are *fault.Fault with a ticket.
func (h *Hub) Resource(ctx context.Context, uri string) (secret.Bytes, error) {
	s, err := h.fetchForWorkload(ctx, uri)
	if err != nil {
		return secret.Bytes{}, h.refuser.Refuse(ctx, ObjectResource, uri, err)
	}
	return s, nil
}

// Evidence returns fresh evidence over at most 64 bytes of runtime data, fitted
// into the platform's field as the platform does, as the JSON text of guest-protocol 4.3. Errors are *fault.Fault with a ticket.
func (h *Hub) Evidence(ctx context.Context, runtimeData []byte) ([]byte, error) {
	ev, err := h.evidence(ctx, runtimeData)
	if err != nil {
		return nil, h.refuser.Refuse(ctx, ObjectEvidence, "", err)
	}
	return ev.Data, nil
}

func (h *Hub) evidence(ctx context.Context, runtimeData []byte) (measure.Evidence, error) {
	if h.attester == nil {
		return measure.Evidence{}, fault.New(fault.Unavailable, errors.New("this guest has no attester"))
	}
	if _, err := measure.NewReportData(runtimeData); err != nil {
		return measure.Evidence{}, fault.New(fault.InvalidRequest, err)
	}
	return measure.EvidenceOver(ctx, h.attester, runtimeData)
}

// BindInitData makes sure that evidence is bound to a digest of init-data
// (guest-protocol 2.2). The agent has bound its own before it believed a word of
// it, and nothing is bound later: a guest that could choose would tell each
// verifier of another. So this compares. Errors are *fault.Fault with a ticket.
func (h *Hub) BindInitData(ctx context.Context, digest []byte) error {
	var err error
	switch {
	case h.attester == nil:
		err = fault.Newf(fault.Unavailable, "this guest has no attester")
	case len(digest) == 0:
		err = fault.Newf(fault.InvalidRequest, "no digest")
	case h.initData == nil:
		err = fault.Newf(fault.InitDataMismatch, "this guest was launched without init-data")
	case !bytes.Equal(digest, h.initData):
		err = fault.Newf(fault.InitDataMismatch, "this guest was launched with other init-data")
	default:
		return nil
	}
	return h.refuser.Refuse(ctx, ObjectInitData, "", err)
}

// Platform names the guest's TEE, empty without an attester.
func (h *Hub) Platform() measure.Platform {
	if h.attester == nil {
		return ""
	}
	return h.attester.Platform()
}

// Refuse gives err a ticket, see [Refuser.Refuse].
func (h *Hub) Refuse(ctx context.Context, kind ObjectKind, name string, err error) error {
	return h.refuser.Refuse(ctx, kind, name, err)
}

// fetch gets a resource without turning the failure into a refusal: the
// errand that needed it does that once, with its own name.
func (h *Hub) fetch(ctx context.Context, uri string) (secret.Bytes, error) {
	if h.broker == nil {
		return secret.Bytes{}, errNoBroker()
	}
	return h.broker.Resource(ctx, uri)
}

// fetchForWorkload is fetch for what is not this agent. Which image a key is
// for is the agent's word to the broker; a workload must not give it.
func (h *Hub) fetchForWorkload(ctx context.Context, uri string) (secret.Bytes, error) {
	u, err := client.ParseResourceURI(uri)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.InvalidRequest, err)
	}
	query, err := url.ParseQuery(u.Query)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.InvalidRequest, err)
	}
	for _, name := range []string{api.QueryImage, api.QueryImageReference} {
		if query.Has(name) {
			return secret.Bytes{}, fault.Newf(fault.InvalidRequest, "a workload cannot ask for a key in the name of an image")
		}
	}
	return h.fetch(ctx, uri)
}

func errNoBroker() error {
	return fault.New(fault.Unavailable, errors.New("no broker is configured"))
}

// Close cancels pulls under way, waits for them, releases all images and gives
// the image directory up. Nothing can be pulled afterwards. A second call does
// nothing.
func (h *Hub) Close() error {
	images, first := h.bundles.close()
	if !first {
		return nil
	}
	h.services.Close()
	var errs []error
	for _, m := range images {
		errs = append(errs, m.release())
	}
	return errors.Join(append(errs, h.images.Load().store.Close())...)
}
