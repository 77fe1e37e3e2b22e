package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// layerKeys looks at the keys that open the layers.
func (p *preflight) layerKeys(ctx context.Context) []check {
	in, err := ship.Inspect(ctx, p.at.ref.Name()+"@"+p.at.image.Manifest.Digest.String(), ship.InspectOptions{Registry: p.cfg})
	if err != nil {
		return []check{broken("key", "", imageError(err))}
	}
	encrypted := 0
	var uris []string
	for i, l := range in.Layers {
		if !l.Encrypted {
			continue
		}
		encrypted++
		mine := slices.DeleteFunc(slices.Concat(l.Keys, l.Beside), func(k string) bool { return !strings.HasPrefix(k, "kbs://") })
		if len(mine) == 0 {
			return []check{refused("key", "kbsctl image rekey "+p.ref+" --key kbs:///REPO/TYPE/TAG --register --with-key FILE",
				"layer %d is not encrypted for a key of the broker, so that no guest can open it %s", i, l.Problem)}
		}
		uris = append(uris, mine...)
	}
	if encrypted == 0 {
		return []check{passed("key", "the image is not encrypted: none is needed")}
	}
	slices.Sort(uris)
	var checks []check
	for _, uri := range slices.Compact(uris) {
		checks = append(checks, p.key(ctx, uri))
	}
	return checks
}

func (p *preflight) key(ctx context.Context, uri string) check {
	const name = "key"
	path, err := resourcePath(uri)
	if err != nil {
		return broken(name, "", err)
	}
	info, err := p.broker.Resource(ctx, path)
	none, err := absent(err)
	digest := p.at.image.Manifest.Digest.String()
	switch {
	case err != nil:
		return broken(name, "", err)
	case none:
		return refused(name, "encrypt the image again (kbsctl image encrypt), or store its key: kbsctl create resource "+path+" --from-file FILE",
			"%s is not at the broker", uri)
	case info.Hold != "":
		return refused(name, fmt.Sprintf("kbsctl set resource %s --hold \"\"", path), "%s is held back: %s", uri, info.Hold)
	case !info.Expires.IsZero() && !info.Expires.After(p.c.now()):
		return refused(name, "kbsctl set resource "+path+" --expires TIME", "%s expired %s", uri, stamp(info.Expires, p.c.now()))
	case info.Size != kekSize:
		return refused(name, "", "%s holds %d bytes, and a key has %d", uri, info.Size, kekSize)
	case len(info.Images) > 0 && !forImage(info.Images, digest, p.at.ref.Name()):
		return refused(name, "kbsctl set resource "+path+" --image "+digest, "%s is for another image: %s", uri, strings.Join(info.Images, ", "))
	}
	p.keys = append(p.keys, path)
	if len(info.Images) == 0 {
		return passed(name, "%s, for any image", uri)
	}
	return passed(name, "%s, for this image", uri)
}

// forImage reports whether a key may be released for an image, as the broker
// decides it: by its digest, or by a repository that it lies in.
func forImage(images []string, digest, repository string) bool {
	return slices.ContainsFunc(images, func(i string) bool {
		return i == digest || i == repository || strings.HasPrefix(repository, i+"/")
	})
}

// policyKeys looks for what a guest fetches to judge the image.
func (p *preflight) policyKeys(ctx context.Context) []check {
	uris := p.j.brokerKeys(p.at.ref)
	if p.j.policy == "" && p.j.policyURI != "" {
		uris = append(uris, p.j.policyURI)
	}
	var checks []check
	for _, uri := range uris {
		path, err := resourcePath(uri)
		if err == nil {
			_, err = p.broker.Resource(ctx, path)
		}
		none, err := absent(err)
		switch {
		case none:
			checks = append(checks, refused("policy keys", "kbsctl create resource "+path+" --from-file FILE", "%s is not at the broker, and the guest needs it to judge the image", uri))
		case err != nil:
			checks = append(checks, broken("policy keys", "", err))
		default:
			checks = append(checks, passed("policy keys", "%s", uri))
		}
	}
	return checks
}

// values compares what the guest will measure with what the broker has.
func (p *preflight) values(ctx context.Context, want map[string]json.RawMessage) check {
	const name = "refvalues"
	all, err := p.broker.RefValues(ctx)
	if err != nil {
		return broken(name, "", err)
	}
	have := map[string]api.RefValue{}
	for _, v := range all {
		if v.InForce {
			have[v.Name] = v
		}
	}
	switch {
	case len(have) == 0:
		return refused(name, "measure predict ... -o refvalue | kbsctl apply -f -", "the broker has no reference value in force: no guest is found affirming")
	case len(want) == 0:
		return open(name, "--refvalues FILE, as measure predict -o refvalue writes it", "the broker has %d in force; which of them this guest needs is not known", len(have))
	}
	var lacking []string
	for n, v := range want {
		if !covers(have[n].Value, v) {
			lacking = append(lacking, n)
		}
	}
	if len(lacking) > 0 {
		slices.Sort(lacking)
		return refused(name, "kbsctl apply -f "+p.refvalues[0], "the broker does not have this guest's %s", strings.Join(lacking, ", "))
	}
	return passed(name, "the broker has all %d of this guest", len(want))
}

// covers reports whether a reference value says all that another one says: it
// is the same, or a list that holds it, or holds all of its items.
func covers(have, want json.RawMessage) bool {
	items := func(raw json.RawMessage) []json.RawMessage {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			return []json.RawMessage{raw}
		}
		return list
	}
	if len(have) == 0 {
		return false
	}
	known := items(have)
	for _, w := range items(want) {
		if !slices.ContainsFunc(known, func(k json.RawMessage) bool { return bytes.Equal(compact(k), compact(w)) }) {
			return false
		}
	}
	return true
}

func compact(raw json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// releases asks the policies about the keys, for a guest with the given claims or
// the appraised evidence.
func (p *preflight) releases(ctx context.Context, guest appraised) []check {
	const name = "release"
	if len(p.keys) == 0 {
		return nil
	}
	if len(p.verdicts)+len(p.evidence) > 0 && guest.claims == nil {
		return []check{open(name, "", "the guest would have no token")}
	}
	policies, err := p.broker.Policies(ctx)
	if err != nil {
		return []check{broken(name, "", err)}
	}
	var checks []check
	for _, path := range p.keys {
		checks = append(checks, p.release(ctx, name, path, policies, guest.claims))
	}
	return checks
}

// release judges with the text that the broker has in force.
func (p *preflight) release(ctx context.Context, name, path string, all []api.Policy, claims json.RawMessage) check {
	id := deciding(all, path)
	if id == "" {
		return refused(name, "kbsctl create policy resource/resource/"+path+" --from-file FILE (kbsctl policy template list)", "no policy decides about %s, so nobody gets it", path)
	}
	if claims == nil && p.claims == "" {
		return open(name, "--evidence PLATFORM=FILE, with evidence of such a guest, which the broker then judges, or --claims FILE, with the payload of its token",
			"policy/resource/%s decides about %s", id, path)
	}
	if claims == nil {
		var err error
		if claims, err = given.File(p.claims, maxConfig); err != nil {
			return broken(name, "", usagef("%w", err))
		}
	}
	input, err := policy.ParseInput(claims)
	if err != nil {
		return refused(name, "", "%s: %v", p.claims, err)
	}
	text, err := p.broker.Policy(ctx, string(policy.Resource), id)
	if err != nil {
		return broken(name, "", err)
	}
	refs, err := p.references(ctx)
	if err != nil {
		return broken(name, "", err)
	}
	host := p.c.policyHost()
	defer host.Close()
	trial, err := host.Try(ctx, policy.Resource, id, text.Rego)
	if err != nil {
		return broken(name, "", err)
	}
	verdict, why := trial.Ask(ctx, policy.Question{Kind: policy.Resource, Input: input, Release: policy.Release{
		Plugin: "resource", Path: strings.Split(path, "/"),
		Query: map[string]string{api.QueryImage: p.at.image.Manifest.Digest.String(), api.QueryImageReference: p.at.ref.String()},
	}}, refs, nil)
	switch {
	case verdict.Error != "":
		return refused(name, "kbsctl policy test", "policy/resource/%s cannot decide: %s", id, verdict.Error)
	case verdict.Allow:
		return passed(name, "policy/resource/%s gives %s to this guest", id, path)
	}
	return refused(name, "kbsctl explain policy/resource/"+id, "policy/resource/%s keeps %s from this guest%s", id, path, because(why))
}

// deciding returns the name of the resource policy that decides about a path:
// the longest one in force.
func deciding(all []api.Policy, path string) string {
	in := map[string]bool{}
	for _, p := range all {
		if p.Kind == string(policy.Resource) && p.InForce {
			in[p.ID] = true
		}
	}
	for id := "resource/" + path; id != "resource"; id = id[:strings.LastIndexByte(id, '/')] {
		if in[id] {
			return id
		}
	}
	if in[policy.ResourcePolicy] {
		return policy.ResourcePolicy
	}
	return ""
}
