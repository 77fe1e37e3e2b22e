package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
)

const exportHelp = `Export writes all that a directory holds to stdout as one kit, signed with a
private key of yours (PKCS#8 in PEM: Ed25519, P-256 or P-384). What has ended is
left out.`

const importHelp = `Import takes a kit into a directory, if one of the keys signed it (public keys
in PEM). It is taken whole or not at all, but for items that have ended or are
older than those in the directory: these are named and left out. FILE may be -
for stdin. A broker that runs on the directory sees the new items when the old
ones are due to be renewed, and at its next start.

Exit code 3 if the kit is not signed by a key that was given, or an item in it
not by its vendor.`

func (c *cli) collateralExportCommand() *cobra.Command {
	var f collateralFlags
	var key string
	cmd := &cobra.Command{
		Use:     "export --dir DIR --key FILE",
		Short:   "Write a kit for machines without a network to stdout",
		Long:    exportHelp,
		Example: "  openssl genpkey -algorithm ed25519 -out me.key\n  measure collateral export --dir ./collateral --key me.key > collateral.kit",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return c.export(f, key) },
	}
	f.add(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`FILE` with the private key that signs the kit")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func (c *cli) export(f collateralFlags, keyFile string) error {
	key, err := c.readSigner(keyFile)
	if err != nil {
		return err
	}
	trusted, err := c.trusted(f)
	if err != nil {
		return err
	}
	s, err := c.store(f, trusted)
	if err != nil {
		return err
	}
	items, err := s.Items()
	if err != nil {
		return err
	}
	now, err := clock(f.at)
	if err != nil {
		return err
	}
	ends := map[collateral.Name]bool{}
	for _, st := range s.Status() {
		ends[st.Name] = !now().Before(st.Until)
	}
	var good []collateral.Item
	for _, i := range items {
		if ends[i.Name] {
			_, _ = fmt.Fprintf(c.err, "measure: left out: %s has ended\n", i.Name)
			continue
		}
		good = append(good, i)
	}
	if len(good) == 0 {
		return fmt.Errorf("%s holds nothing that is good now", f.dir)
	}
	kit, err := collateral.Pack(good, now(), key)
	if err != nil {
		return err
	}
	_, err = c.out.Write(kit)
	return errors.Join(err, s.Close())
}

func (c *cli) collateralImportCommand() *cobra.Command {
	var f collateralFlags
	var keys []string
	cmd := &cobra.Command{
		Use:     "import --dir DIR --key FILE KIT",
		Short:   "Take a kit into a directory",
		Long:    importHelp,
		Example: "  measure collateral import --dir /var/lib/kbs/collateral --key me.pub collateral.kit",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.importKit(cmd.Context(), f, keys, args[0]) },
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&keys, "key", nil, "`FILE` with a public key whose kits are taken (repeatable)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func (c *cli) importKit(ctx context.Context, f collateralFlags, keyFiles []string, path string) error {
	var keys []crypto.PublicKey
	for _, name := range keyFiles {
		key, err := c.readPublicKey(name)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	trusted, err := c.trusted(f)
	if err != nil {
		return err
	}
	raw, err := c.readFile(path)
	if err != nil {
		return err
	}
	kit, err := collateral.Unpack(raw, keys...)
	if err != nil {
		return invalidEvidence{fmt.Errorf("%s: %w", path, err)}
	}
	s, err := c.store(f, trusted)
	if err != nil {
		return err
	}
	all, err := s.Import(ctx, kit.Items)
	if err != nil {
		return invalidEvidence{fmt.Errorf("%s: %w", path, err)}
	}
	t := table{head: []string{"NAME", "TAKEN", "REASON"}}
	for _, i := range all {
		taken, reason := "yes", ""
		if i.Err != nil {
			taken, reason = "no", i.Err.Error()
		}
		t.rows = append(t.rows, []string{string(i.Name), taken, reason})
	}
	t.print(c.out)
	return s.Close()
}
