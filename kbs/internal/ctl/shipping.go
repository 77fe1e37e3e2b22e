package ctl

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// shipped is what came of an `image encrypt`.
type shipped struct {
	ship.Result
	Key       string           `json:"key,omitempty"`
	Policy    string           `json:"policy,omitempty"`
	Signature *ship.SignResult `json:"signature,omitempty"`
}

// encrypt ships the image. A new key is stored before the image appears, so that
// no image is ever published that nobody can open, and it is held back until
// everything else is done.
func (c *cli) encrypt(ctx context.Context, e encryption) error {
	kek, err := e.kek()
	if err != nil {
		return err
	}
	defer kek.Destroy()
	if !e.register {
		done, err := c.ship(ctx, e, kek, func(*shipped) error { return nil })
		if err != nil {
			return err
		}
		return c.tellShipped(done)
	}
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	there, err := a.Resource(ctx, e.path)
	none, err := absent(err)
	switch {
	case err != nil:
		return doing(err, "look for resource/%s", e.path)
	case !none && !e.overwrite:
		return doing(existsAlready(there.Version), "register resource/%s", e.path)
	}
	var done shipped
	work := func() (about api.ResourceMeta, err error) {
		done, err = c.ship(ctx, e, kek, func(d *shipped) error { return c.installRelease(ctx, a, e, d) })
		return e.bound(there.ResourceMeta, done), err
	}
	if none {
		if err := c.holdThenBind(ctx, a, e.path, kek, work); err != nil {
			return err
		}
		return c.tellShipped(done)
	}
	// The new key takes the old one's place when it is stored, so that comes last.
	about, err := work()
	if err != nil {
		if errors.Is(err, ship.ErrHalfDone) {
			c.warnf("%s may be at the new image already, and its key is not at the broker: encrypt it again", e.dst)
		}
		return err
	}
	if _, err := a.PutResourceIf(ctx, e.path, there.Version, kek, &about); err != nil {
		c.warnf("%s was written, but its key is not at the broker: encrypt it again", e.dst)
		return doing(err, "register resource/%s", e.path)
	}
	return c.tellShipped(done)
}

// bound is what is said about the key of an image that was written.
func (e encryption) bound(about api.ResourceMeta, done shipped) api.ResourceMeta {
	about.Hold, about.Images = "", nil
	if !e.unbound {
		about.Images = done.Digests()
	}
	if about.Purpose == "" {
		about.Purpose = "opens a container image"
	}
	return about
}

// ship writes and checks the image, and signs it. The image has no name before it is
// signed and release has said who gets its key, so that what fails on the way leaves
// nothing that anybody would find.
func (c *cli) ship(ctx context.Context, e encryption, kek secret.Bytes, release func(*shipped) error) (shipped, error) {
	var key crypto.Signer
	if e.sign != "" { // before anything is written
		signer, done, err := c.signer(ctx, e.sign, e.words)
		if err != nil {
			return shipped{}, err
		}
		defer done()
		key = signer
	}
	show := c.display(e.progress)
	defer show.Close()
	var done shipped
	var later error // what is no error of the encryption
	written, err := ship.Encrypt(ctx, e.src, e.dst, ship.EncryptOptions{
		KID: e.key, KEK: kek, Recipients: e.others, Keys: ship.KeyPlace(e.keys), Registry: e.registry, Platform: e.platform, Check: true,
		Progress: func(ev ship.Event) { show.Update(shipUpdate(ev)) },
		Before: func(ctx context.Context, written ship.Result) error {
			show.Close()
			done = shipped{Result: written, Key: e.key}
			if key != nil {
				done.Signature, later = signWritten(ctx, written.Reference, key, e.registry)
			}
			if later == nil {
				later = release(&done)
			}
			return later
		},
	})
	switch {
	case later != nil:
		return done, later
	case err != nil:
		return done, doing(imageError(err), "encrypt %s", e.src)
	}
	if !written.Checked {
		c.warnf("WARNING: no guest can open the image, only the recipients: without any evidence, and that they can was not checked")
	}
	return done, nil
}

// signWritten signs the image, and holds the signature against the key.
func signWritten(ctx context.Context, name string, key crypto.Signer, cfg registry.Config) (*ship.SignResult, error) {
	signed, err := ship.SignWith(ctx, name, key, ship.SignOptions{Registry: cfg})
	if err == nil {
		err = checkSignature(ctx, name, key.Public(), cfg)
	}
	if err != nil {
		return nil, doing(imageError(err), "sign %s", name)
	}
	return &signed, nil
}

// checkSignature judges the image as a guest would whose policy wants this key.
func checkSignature(ctx context.Context, name string, key crypto.PublicKey, cfg registry.Config) error {
	public, err := ship.PublicPEM(key)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(map[string]any{
		"default": []any{map[string]any{"type": "sigstoreSigned", "keyData": public}}, "transports": map[string]any{},
	})
	if err != nil {
		return err
	}
	rules, err := trust.ParsePolicy(raw)
	if err != nil {
		return err
	}
	ref, err := registry.ParseReference(name)
	if err != nil {
		return err
	}
	client, err := registry.NewClient(cfg)
	if err != nil {
		return err
	}
	repo, err := client.Repository(ref)
	if err != nil {
		return err
	}
	_, err = rules.Evaluate(ctx, trust.Subject{Reference: ref, Root: ref.Digest, Manifest: ref.Digest}, trust.Evidence{Signatures: repo.Home()})
	return err
}

// releasePolicy is who gets a key: a text, or a template that still wants the
// image's digests.
type releasePolicy struct {
	text     string
	template *policy.Template
}

// readReleasePolicy returns nil for no name. A file goes before a template.
func readReleasePolicy(name string) (*releasePolicy, error) {
	if name == "" {
		return nil, nil
	}
	b, err := given.File(name, maxRego)
	if err == nil {
		if err := policy.Check(policy.Resource, string(b)); err != nil {
			return nil, usagef("%s: %w", name, err)
		}
		return &releasePolicy{text: string(b)}, nil
	}
	all, terr := policy.Templates()
	if terr != nil {
		return nil, terr
	}
	i := slices.IndexFunc(all, func(t policy.Template) bool { return t.Name == name && t.Kind == policy.Resource })
	switch {
	case i < 0 && errors.Is(err, fs.ErrNotExist):
		return nil, usagef("--policy: there is no file and no template %s for resources", name).hint("kbsctl policy template list")
	case i < 0:
		return nil, usagef("--policy: %w", err)
	}
	for set := range all[i].Sets {
		if set != "digests" {
			return nil, usagef("--policy: the template %s wants to know %s", name, set).
				hint("kbsctl policy template show %s --set %s=VALUE > release.rego, then --policy release.rego", name, set)
		}
	}
	return &releasePolicy{template: &all[i]}, nil
}

// installRelease puts the policy into force for the key alone.
func (c *cli) installRelease(ctx context.Context, a *admin.Client, e encryption, done *shipped) error {
	if e.release == nil {
		return nil
	}
	text := e.release.text
	if t := e.release.template; t != nil {
		sets := map[string][]string{}
		if _, wanted := t.Sets["digests"]; wanted {
			sets["digests"] = done.Digests()
		}
		var err error
		if text, err = t.Fill(sets); err != nil {
			return err
		}
	}
	p := api.Policy{Kind: string(policy.Resource), ID: "resource/" + e.path, Rego: text, Note: "for the image " + done.Reference}
	if e.overwrite {
		p.Version = int64(store.Any)
	}
	stored, err := a.PutPolicy(ctx, p)
	if err != nil {
		return doing(exists(err, e.overwrite), "create policy/%s/%s", p.Kind, p.ID)
	}
	done.Policy = stored.Kind + "/" + stored.ID
	return nil
}

// tellShipped prints the reference; what a person does next goes to stderr, or,
// as -o manifest, to stdout alone.
func (c *cli) tellShipped(done shipped) error {
	switch c.flags.output {
	case "table":
	case "manifest":
		if strings.HasPrefix(done.Reference, "oci:") {
			return usagef("an OCI layout cannot be run: there is no pod to print")
		}
		return c.printf("%s", podSnippet(done.Reference))
	default:
		return c.printData(done)
	}
	if err := c.printf("%s\n", done.Reference); err != nil {
		return err
	}
	if done.Policy != "" {
		c.warnf("its key %s is released as policy/%s says", done.Key, done.Policy)
	} else if done.Key != "" {
		c.warnf("its key is %s", done.Key)
	}
	if done.Signature != nil {
		c.warnf("signed by %s", done.Signature.Key)
	}
	if !strings.HasPrefix(done.Reference, "oci:") {
		c.warnf("a pod that runs it:\n\n%s", podSnippet(done.Reference))
	}
	return nil
}

// podSnippet is a pod that runs the image, by digest.
func podSnippet(reference string) string {
	name, _, _ := strings.Cut(path.Base(reference), "@")
	name = strings.Trim(strings.NewReplacer(".", "-", "_", "-").Replace(notInNames.ReplaceAllString(strings.ToLower(name), "-")), "-")
	return `apiVersion: v1
kind: Pod
metadata:
  name: ` + name + `
spec:
  runtimeClassName: kata-cc  # that of confidential guests in your cluster
  containers:
  - name: ` + name + `
    image: ` + reference + `
`
}

// imagesFlag spells the images of a key as kbsctl set resource takes them.
func imagesFlag(about api.ResourceMeta) string {
	text := ""
	for _, d := range about.Images {
		text += " --image " + d
	}
	return text
}

// errHeld says that all is done but the last step.
func errHeld(err error, path string, about api.ResourceMeta) error {
	exit := exitCode(err)
	if _, coded := errors.AsType[*fault.Fault](err); !coded {
		exit = fault.ExitUnavailable
	}
	return (&failure{err: doing(err, "bind resource/%s to its image", path), exit: exit}).
		hint("the image is written, and its key is held back: kbsctl set resource %s%s --hold \"\"", path, imagesFlag(about))
}
