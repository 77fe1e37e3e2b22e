package world

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// challengeResource is where the witness finds what its evidence is to be over.
const challengeResource = "default/demo/challenge"

// witness is a container of every fleet's pod that has the agent make evidence and
// prints it: its owner is in on what is done with it.
var witness = Beside{Name: "witness", Command: []string{"/bin/sh", "-c", "busybox wget -q -O - \"http://127.0.0.1:8006/aa/evidence?encoding=base64&runtime_data=" +
	"`busybox wget -q -O - http://127.0.0.1:8006/cdh/resource/" + challengeResource + "`\" && echo && echo done"}}

// testify boots a machine and returns its evidence over a digest.
func (f *Fleet) testify(ctx context.Context, digest []byte) (evidence string, err error) {
	if err := os.WriteFile(f.Path("challenge"), []byte(base64.RawURLEncoding.EncodeToString(digest)), 0o600); err != nil {
		return "", err
	}
	if err := f.apply(ctx, "challenge.yaml", fmt.Sprintf("kind: Resource\nmetadata: {name: %s}\nspec: {valueFile: challenge}\n", challengeResource)); err != nil {
		return "", err
	}
	config, err := f.ImageConfig(ctx, f.Ref)
	if err != nil {
		return "", err
	}
	config.Entrypoint, config.Cmd = witness.Command, nil
	err = f.RunPod(ctx, f.Booted(), func(k *Kata) error {
		if err := k.Run(ctx, Container{ID: witness.Name, Name: witness.Name, Image: f.Ref, Config: config}); err != nil {
			return err
		}
		evidence, err = k.Output(ctx, witness.Name, "done")
		return err
	})
	return strings.TrimSuffix(strings.TrimSpace(evidence), "done"), err
}

// UnexplainedLog has a booted guest make evidence for a challenge, and sends it
// with another event log: one event's digest is wrong by one bit, so that the log
// does not lead to the registers that the TPM quotes.
func (f *Fleet) UnexplainedLog(ctx context.Context) (Refusal, error) {
	client, err := f.Broker.HTTP()
	if err != nil {
		return Refusal{}, err
	}
	tap := &wiretap{f.Broker.URL, client}
	nonce, cookie, err := tap.auth(ctx, "tpm")
	if err != nil {
		return Refusal{}, err
	}
	runtime, digest, err := runtimeData(nonce)
	if err != nil {
		return Refusal{}, err
	}
	out, err := f.testify(ctx, digest)
	if err != nil {
		return Refusal{}, err
	}
	evidence, err := otherLog(out)
	if err != nil {
		return Refusal{}, err
	}
	document, err := os.ReadFile(f.InitData)
	if err != nil {
		return Refusal{}, err
	}
	err = tap.attest(ctx, map[string]any{
		"init-data":    map[string]any{"format": "toml", "body": string(document)},
		"runtime-data": runtime,
		"tee-evidence": map[string]any{"primary_evidence": evidence, "additional_evidence": ""},
	}, cookie)
	r, err := f.Refused(ctx, err, fault.EvidenceInvalid)
	if err != nil {
		return r, err
	}
	_, err = r.Finding("pcr")
	return r, err
}

// otherLog flips one bit in the middle of evidence's event log, in a digest of
// one of its events.
func otherLog(text string) (json.RawMessage, error) {
	var evidence map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &evidence); err != nil {
		return nil, fmt.Errorf("the container prints no evidence: %w: %.200s", err, text)
	}
	var log []byte
	if err := json.Unmarshal(evidence["cc_eventlog"], &log); err != nil {
		return nil, err
	}
	// The first event of PCR 4 (TCG PFP 10.2.2): register, type, one digest of
	// SHA-256.
	at := strings.Index(string(log), "\x04\x00\x00\x00\x07\x00\x00\x80\x01\x00\x00\x00\x0b\x00")
	if at < 0 {
		return nil, errors.New("the event log has no event of PCR 4")
	}
	log[at+14] ^= 1
	var err error
	if evidence["cc_eventlog"], err = json.Marshal(log); err != nil {
		return nil, err
	}
	return json.Marshal(evidence)
}

// runtimeData makes a key, and says what evidence for it and a nonce is over. It
// hashes by itself, not through the project's client.
func runtimeData(nonce string) (data map[string]any, digest []byte, err error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	point := key.PublicKey().Bytes() // 4 | x | y
	jwk := map[string]any{
		"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
	}
	// encoding/json sorts the members of maps, and nothing here needs escaping:
	// this is the canonical form of RFC 8785.
	text, err := json.Marshal(map[string]any{"additional-evidence": "", "nonce": nonce, "tee-pubkey": jwk})
	if err != nil {
		return nil, nil, err
	}
	sum := sha512.Sum384(text)
	return map[string]any{"nonce": nonce, "tee-pubkey": jwk}, sum[:], nil
}
