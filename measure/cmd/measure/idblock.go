package main

import (
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

const idBlockHelp = `Idblock signs what SEV-SNP may launch: an ID block and its authentication for each
predicted launch measurement. The processor launches nothing else under an ID
block, and its reports name the keys and the version. A policy can then demand
id_key_digest and a version, and needs no new value for each number of vCPUs.

The answer is JSON: for each shape the block and its authentication in base64, as
QEMU takes them (sev-snp-guest's id-block and id-auth; Kata's snp_id_block and
snp_id_auth), and the digests of the keys as reports show them.

Keys are PEM, PKCS#8, P-384. Without an author key the reports name none.`

type idBlockFlags struct {
	prediction, measurement string
	idKey, authorKey        string
	family, image           string
	version                 uint32
	policy                  uint64
}

func (c *cli) idBlockCommand() *cobra.Command {
	var f idBlockFlags
	cmd := &cobra.Command{
		Use:   "idblock --prediction FILE | --measurement HEX --id-key FILE [--author-key FILE]",
		Short: "Sign what SEV-SNP may launch",
		Long:  idBlockHelp,
		Example: `  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out id.key
  measure idblock --prediction prediction.json --id-key id.key --version 7 > idblocks.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return c.idBlocks(f) },
	}
	s := cmd.Flags()
	s.StringVar(&f.prediction, "prediction", "", "`FILE` that 'measure predict -o json' wrote")
	s.StringVar(&f.measurement, "measurement", "", "launch measurement in `HEX` instead")
	s.StringVar(&f.idKey, "id-key", "", "`FILE` with the key that signs the block")
	s.StringVar(&f.authorKey, "author-key", "", "`FILE` with the key that signs that key")
	s.StringVar(&f.family, "family-id", "", "`HEX` of 16 bytes that reports show, the owner's to choose")
	s.StringVar(&f.image, "image-id", "", "`HEX` of 16 bytes that reports show, the owner's to choose")
	s.Uint32Var(&f.version, "version", 0, "`NUMBER` of the guest's version, guest_svn in reports")
	s.Uint64Var(&f.policy, "policy", snp.DefaultPolicy, "guest policy `BITS`")
	inHex(cmd, "policy")
	cmd.MarkFlagsMutuallyExclusive("prediction", "measurement")
	cmd.MarkFlagsOneRequired("prediction", "measurement")
	_ = cmd.MarkFlagRequired("id-key")
	return cmd
}

// signedBlock is one block of the answer.
type signedBlock struct {
	Measurement string        `json:"measurement"`
	When        predict.Shape `json:"when,omitempty"`
	IDBlock     string        `json:"id_block"`
	IDAuth      string        `json:"id_auth"`
}

func (c *cli) idBlocks(f idBlockFlags) error {
	measured, err := c.measurements(f)
	if err != nil {
		return err
	}
	b := snp.IDBlock{Version: f.version, Policy: f.policy}
	for _, field := range []struct {
		flag, value string
		to          []byte
	}{{"family-id", f.family, b.FamilyID[:]}, {"image-id", f.image, b.ImageID[:]}} {
		raw, err := hex.DecodeString(field.value)
		if err != nil || field.value != "" && len(raw) != len(field.to) {
			return fmt.Errorf("--%s wants %d bytes in hex", field.flag, len(field.to))
		}
		copy(field.to, raw)
	}
	id, err := c.readSigner(f.idKey)
	if err != nil {
		return err
	}
	answer := map[string]any{}
	if err := nameKey(answer, "id_key_digest", id); err != nil {
		return err
	}
	var author crypto.Signer
	if f.authorKey != "" {
		if author, err = c.readSigner(f.authorKey); err != nil {
			return err
		}
		if err := nameKey(answer, "author_key_digest", author); err != nil {
			return err
		}
	}
	var blocks []signedBlock
	for _, m := range measured {
		raw, err := hex.DecodeString(m.Value)
		if err != nil || len(raw) != len(b.Measurement) {
			return fmt.Errorf("%q is no launch measurement of SEV-SNP", m.Value)
		}
		b.Measurement = [48]byte(raw)
		auth, err := b.Sign(id, author)
		if err != nil {
			return err
		}
		blocks = append(blocks, signedBlock{m.Value, m.When, base64.StdEncoding.EncodeToString(b.Marshal()), base64.StdEncoding.EncodeToString(auth)})
	}
	answer["blocks"] = blocks
	return c.printJSON(answer)
}

func nameKey(answer map[string]any, name string, key crypto.Signer) error {
	digest, err := snp.KeyDigest(key.Public())
	answer[name] = hex.EncodeToString(digest[:])
	return err
}

// measurements are those to allow.
func (c *cli) measurements(f idBlockFlags) ([]predict.Value, error) {
	if f.measurement != "" {
		return []predict.Value{{Value: f.measurement}}, nil
	}
	doc, err := c.readPrediction(f.prediction)
	if err != nil {
		return nil, err
	}
	var out []predict.Value
	for _, v := range doc.Values {
		if v.Platform == predict.SNP && v.Register == "measurement" {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the prediction has no launch measurement of SEV-SNP")
	}
	return out, nil
}
