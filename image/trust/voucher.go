package trust

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
)

// A voucher says whose a signature is, for one requirement: that of one of its
// keys, or of one of its identities.
type voucher struct {
	keys       []publicKey
	root       *sigstore.Root // nil: neither logs nor certificates are asked for
	identities []identity
}

// A signer is who made a signature, for certain.
type signer struct {
	name     string // a key's fingerprint, or an identity
	issuer   string // of an identity
	subject  string
	at       time.Time // since when it exists; zero: nobody says
	log      []byte    // that recorded it; nil: none was asked for
	index    int64
	unlogged bool // its certificate need not be in any log
}

// deaf says that there are keys whose signatures could not be verified.
func (v voucher) deaf(message sigstore.Content) string {
	_, whole := message.Raw()
	pure := func(k publicKey) bool { _, ok := k.key.(ed25519.PublicKey); return ok }
	if whole || !slices.ContainsFunc(v.keys, pure) {
		return ""
	}
	return ", which is too large to be verified with an Ed25519 key"
}

// wanted lists the signers that count, for rejections.
func (v voucher) wanted() []string {
	var all []string
	for _, k := range v.keys {
		all = append(all, k.fingerprint)
	}
	for _, id := range v.identities {
		all = append(all, id.String())
	}
	return all
}

// judge finds the signer, or says why there is none that counts.
func (v voucher) judge(ctx context.Context, sig Signature) (signer, string) {
	if len(v.identities) > 0 {
		return v.keyless(ctx, sig)
	}
	message := sig.message()
	i := slices.IndexFunc(v.keys, func(k publicKey) bool { return k.verify(message, sig.Sig) })
	if i < 0 {
		return signer{}, stranger(sig) + v.deaf(message)
	}
	who := signer{name: v.keys[i].fingerprint}
	if v.root == nil {
		return who, ""
	}
	res, err := v.around(ctx, sig, v.keys[i].key, false)
	if err != nil {
		return signer{}, fmt.Sprintf("a signature by the wanted key that the policy's log does not confirm (%v)", err)
	}
	who.at, who.log, who.index = res.Time, res.Log, res.Index
	return who, ""
}

// keyless judges a signature by a certificate.
func (v voucher) keyless(ctx context.Context, sig Signature) (signer, string) {
	if sig.spoiled != nil {
		return signer{}, fmt.Sprintf("a signature with unreadable annotations (%v)", sig.spoiled)
	}
	if len(sig.material.Chain) == 0 {
		return signer{}, stranger(sig)
	}
	key, err := usable(sig.material.Chain[0].PublicKey)
	if err != nil || !key.verify(sig.message(), sig.Sig) {
		return signer{}, "a signature that its certificate's key did not make"
	}
	res, err := v.around(ctx, sig, key.key, true)
	if err != nil {
		return signer{}, fmt.Sprintf("%s, which does not hold (%v)", stranger(sig), err)
	}
	id := res.Identity
	if !slices.ContainsFunc(v.identities, func(want identity) bool { return want.matches(id) }) {
		return signer{}, fmt.Sprintf("a good signature by %s, whom nobody asked for", nameOf(id))
	}
	return signer{
		name: nameOf(id), issuer: id.Issuer, subject: id.Subject, at: res.Time, log: res.Log, index: res.Index, unlogged: res.Unlogged,
	}, ""
}

// around checks the material of a signature that key made.
func (v voucher) around(ctx context.Context, sig Signature, key crypto.PublicKey, certified bool) (sigstore.Result, error) {
	if sig.spoiled != nil {
		return sigstore.Result{}, sig.spoiled
	}
	s := sigstore.Signed{Message: sig.message(), Payload: sig.envelope(), Sig: sig.Sig, Key: key}
	if certified {
		s.Certificate = sig.material.Chain[0]
	}
	return v.root.Check(ctx, sig.material, s)
}

func nameOf(id sigstore.Identity) string { return fmt.Sprintf("%s (%s)", id.Subject, id.Issuer) }
