// Package provisioner is the field's plugin of that name (kbs-protocol 8): keys
// of the disks of virtual machines that have a name before they first boot.
//
// An administrator, usually the program that makes the machine, asks for a key
// by the machine's name and gets an address. The address goes into the
// machine's init-data, and only a guest whose evidence is bound to init-data
// that names the address gets the key: a policy that allows the plugin to all
// good guests still gives each of them its own key alone.
package provisioner

import (
	"context"
	"crypto/sha1" //nolint:gosec // UUIDs of version 5 are made with it (RFC 9562, section 5.5); nothing rests on its strength
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Name of the plugin.
const Name = "provisioner"

// Prefix begins the names of the plugin's keys in a tenant's ring.
const Prefix = Name + "/"

// Lengths of a key, in characters of which each is one of 62. The least has
// 128 bits of chance in it; the most is what cryptsetup takes from a terminal.
const (
	DefaultLength = 32
	MinLength     = 22
	MaxLength     = 512
)

// What the first segment of an address, and its last one, may be.
const (
	provision = "provision"
	space     = "default"
	disk      = "root"
)

// claimResource is the member of the init-data that names the one key which a
// guest may have, and what stands before the key's address in it.
const (
	claimResource = "trustee.kbs.resource"
	scheme        = "kbs+" + Name + ":///"
)

var (
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	// nameForm has no slash: namespace and name are joined by one.
	nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
)

// Ring is where the keys are, each sealed under the tenant's binding of the
// master key: a keyring.Ring.
type Ring interface {
	// Get returns store.ErrNotFound for a name without a key.
	Get(ctx context.Context, name string) (secret.Bytes, error)
	LoadOrCreate(ctx context.Context, name string, create func() (secret.Bytes, error)) (secret.Bytes, error)
	// Delete returns store.ErrNotFound for a name without a key.
	Delete(ctx context.Context, name string) error
}

// Plugin is one tenant's.
type Plugin struct {
	ring   Ring
	length int
}

var (
	_ plugin.Plugin = (*Plugin)(nil)
	_ plugin.Teller = (*Plugin)(nil)
)

// New returns the plugin over a tenant's ring. New keys have length characters;
// 0 is DefaultLength.
func New(r Ring, length int) *Plugin {
	if length == 0 {
		length = DefaultLength
	}
	return &Plugin{r, length}
}

// NeedsAdmin implements plugin.Plugin: reading is for guests, all else is not.
func (p *Plugin) NeedsAdmin(_ context.Context, c plugin.Call) (bool, error) {
	return c.Method != http.MethodGet, check(c)
}

// Encrypts implements plugin.Plugin.
func (p *Plugin) Encrypts(_ context.Context, c plugin.Call) (bool, error) {
	return c.Method == http.MethodGet, check(c)
}

// check refuses what the plugin does not have.
func check(c plugin.Call) error {
	method := ""
	switch {
	case len(c.Path) == 1 && c.Path[0] == provision:
		method = http.MethodPost
	case len(c.Path) == 2 && c.Path[0] == provision && uuidForm.MatchString(c.Path[1]):
		method = http.MethodDelete
	case len(c.Path) == 3 && c.Path[0] == space && uuidForm.MatchString(c.Path[1]) && c.Path[2] == disk:
		method = http.MethodGet
	default:
		return fault.Newf(fault.NotFound, "plugin %s has %s, %s/UUID and %s/UUID/%s", Name, provision, provision, space, disk)
	}
	if c.Method != method {
		return fault.Newf(fault.MethodNotAllowed, "plugin %s: %s is for %s", Name, c.Path[0], method)
	}
	return nil
}

// Tell implements plugin.Teller: which machine an administrator asks about.
func (p *Plugin) Tell(c plugin.Call) map[string]string {
	m, err := machineOf(c.Body)
	if c.Method != http.MethodPost || err != nil {
		return nil
	}
	return map[string]string{"vm_name": m.VMName, "namespace": m.Namespace, "uuid": m.uuid()}
}

// Handle implements plugin.Plugin.
func (p *Plugin) Handle(ctx context.Context, c plugin.Call) (plugin.Answer, error) {
	if err := check(c); err != nil {
		return plugin.Answer{}, err
	}
	switch c.Method {
	case http.MethodPost:
		return p.provision(ctx, c.Body)
	case http.MethodDelete:
		return p.remove(ctx, c.Path[1])
	default:
		return p.get(ctx, c)
	}
}

// machine is a request to provision, and what a key is known by.
type machine struct {
	VMName    string `json:"vm_name"`
	Namespace string `json:"namespace"`
}

func machineOf(body []byte) (machine, error) {
	m := machine{Namespace: "default"}
	if err := strictjson.Decode(body, &m); err != nil {
		return m, fault.New(fault.InvalidRequest, err)
	}
	if !nameForm.MatchString(m.VMName) || !nameForm.MatchString(m.Namespace) {
		return m, fault.Newf(fault.InvalidRequest, "vm_name and namespace are 1 to 253 of letters, digits, '.', '_' and '-', with a letter or digit at both ends")
	}
	return m, nil
}

// family is the namespace of the UUIDs, the same at every broker of the field.
var family = [16]byte{0xfe, 0xab, 0x55, 0x99, 0x68, 0x54, 0x52, 0xbc, 0x95, 0xf0, 0x02, 0x41, 0xc0, 0x3e, 0x62, 0x0a}

// uuid is the name by which a guest knows the machine (RFC 9562, version 5).
func (m machine) uuid() string {
	sum := sha1.Sum(append(family[:], m.Namespace+"/"+m.VMName...)) //nolint:gosec // as above
	sum[6], sum[8] = sum[6]&0x0f|0x50, sum[8]&0x3f|0x80
	t := hex.EncodeToString(sum[:16])
	return t[:8] + "-" + t[8:12] + "-" + t[12:16] + "-" + t[16:20] + "-" + t[20:]
}

func address(uuid string) string { return space + "/" + uuid + "/" + disk }

// provision makes a machine's key, unless it has one.
func (p *Plugin) provision(ctx context.Context, body []byte) (plugin.Answer, error) {
	m, err := machineOf(body)
	if err != nil {
		return plugin.Answer{}, err
	}
	id := m.uuid()
	key, err := p.ring.LoadOrCreate(ctx, Prefix+id, func() (secret.Bytes, error) { return p.document(), nil })
	if err != nil {
		return plugin.Answer{}, err
	}
	key.Destroy()
	out, err := json.Marshal(struct {
		UUID string `json:"uuid"`
		Path string `json:"resource_path"`
	}{id, address(id)})
	return plugin.Answer{Body: out}, err
}

const (
	alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

	before = "version = \"0.1.0\"\n\n[data]\n\"io.cryptsetup.key.text.root\" = \""
	after  = "\"\n"
)

// document is what a guest gets: a TOML text with a new key in it.
func (p *Plugin) document() secret.Bytes {
	out := make([]byte, 0, len(before)+p.length+len(after))
	out = append(out, before...)
	for len(out) < len(before)+p.length {
		chance := secret.Random(p.length)
		for _, b := range chance.Reveal() {
			// What is beyond a multiple of the alphabet's size would make some
			// characters likelier than others.
			if int(b) < 256-256%len(alphabet) && len(out) < len(before)+p.length {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
		chance.Destroy()
	}
	return secret.New(append(out, after...))
}

// remove takes a machine's key away; where there is none, it is away.
func (p *Plugin) remove(ctx context.Context, uuid string) (plugin.Answer, error) {
	err := p.ring.Delete(ctx, Prefix+uuid)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return plugin.Answer{}, err
	}
	return plugin.Answer{Body: []byte(`{"status":"deleted"}`)}, nil
}

// get gives a guest the key that its init-data names. A guest that may not have
// it does not learn whether it exists.
func (p *Plugin) get(ctx context.Context, c plugin.Call) (plugin.Answer, error) {
	named, err := bound(c.Claims)
	if err != nil {
		return plugin.Answer{}, err
	}
	if want := scheme + address(c.Path[1]); named != want {
		return plugin.Answer{}, fault.Newf(fault.PolicyDenied, "the init-data binds the guest to %.256q in %s, wanted %q", named, claimResource, want)
	}
	key, err := p.ring.Get(ctx, Prefix+c.Path[1])
	if err != nil {
		return plugin.Answer{}, err
	}
	return plugin.Answer{Body: key.Reveal()}, nil // the caller wipes it
}

// bound reads from verified claims which key the init-data names.
func bound(claims json.RawMessage) (named string, err error) {
	at, err := strictjson.Parse(claims)
	for _, member := range []string{"submods", token.CPU, "ear.veraison.annotated-evidence", "init_data_claims"} {
		if err == nil && at != nil {
			at, err = at.Object(member)
		}
	}
	found := false
	if err == nil && at != nil {
		found, err = at.Take(claimResource, &named)
	}
	switch {
	case err != nil:
		return "", fault.Newf(fault.PolicyDenied, "the guest's init-data does not say which key is its own: %w", err)
	case !found:
		return "", fault.Newf(fault.PolicyDenied, "the guest is not bound to init-data that says which key is its own: %s is absent", claimResource)
	}
	return named, nil
}
