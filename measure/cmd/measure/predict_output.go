package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

// outputFlags say in which form a prediction is written.
type outputFlags struct {
	form                   *choice
	id, key, keyID         string
	begins, ends           string
	validBegins, validEnds time.Time // read by check
}

func (o *outputFlags) add(cmd *cobra.Command) {
	o.form = oneOf("text", "hex", "json", "refvalue", "rvps", "corim", "log")
	s := cmd.Flags()
	s.VarP(o.form, "output", "o", `text for people; hex, if there is one value only; json, the document;
refvalue, documents for kbsctl apply; rvps, a message to Trustee's
reference value provider; corim, a document signed with --key; log, the event
log that a boot leaves on the one --platform, tdx or tpm`)
	s.StringVar(&o.id, "id", "", "`NAME` of the signed document: the next one of that name takes its place at the broker")
	s.StringVar(&o.key, "key", "", "`FILE` with the signer's private key: PEM, PKCS#8; Ed25519, P-256 or P-384")
	s.StringVar(&o.keyID, "key-id", "", "`NAME` of the signer at the broker, a hint for it")
	s.StringVar(&o.begins, "begins", "", "`TIME` (RFC 3339) or day from whose end on the signed document counts")
	s.StringVar(&o.ends, "ends", "", "`TIME` (RFC 3339) or day after which the values count no more, for refvalue and corim")
}

// check reads what is needed before anything is computed.
func (o *outputFlags) check() (err error) {
	if o.validBegins, err = parseEnd(o.begins); err != nil {
		return fmt.Errorf("--begins: %w", err)
	}
	if o.validEnds, err = parseEnd(o.ends); err != nil {
		return fmt.Errorf("--ends: %w", err)
	}
	signed := o.form.value == "corim"
	switch {
	case signed && (o.id == "" || o.key == ""):
		return errors.New("-o corim needs --id and --key")
	case !signed && (o.id != "" || o.key != "" || o.keyID != "" || o.begins != ""):
		return errors.New("--id, --key, --key-id and --begins are for -o corim")
	case !signed && o.form.value != "refvalue" && o.ends != "":
		return errors.New("--ends is for -o refvalue and -o corim: nothing else can say it")
	}
	return nil
}

// parseEnd reads a time, or a day, whose end it means; "" is no time.
func parseEnd(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	day, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a time like 2027-01-31T12:00:00Z nor a day like 2027-01-31", s)
	}
	return day.AddDate(0, 0, 1), nil
}

func (c *cli) printPrediction(d *predict.Document, o outputFlags) error {
	switch o.form.value {
	case "json":
		return c.printJSON(d)
	case "refvalue":
		return c.printRefValues(d, o)
	case "rvps":
		message, err := d.RVPS()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s\n", message)
		return err
	case "corim":
		return c.printSigned(d, o)
	case "log":
		return c.printLog(d)
	case "hex":
		if len(d.Values) != 1 {
			return fmt.Errorf("-o hex is for one value, and %d are predicted: give one --platform and one shape, or -o json", len(d.Values))
		}
	}
	if len(d.Values) == 1 && len(d.Unpredicted) == 0 {
		_, err := fmt.Fprintln(c.out, d.Values[0].Value)
		return err
	}
	return printPredicted(c.out, d)
}

// printLog writes the event log of the one platform that has a boot.
func (c *cli) printLog(d *predict.Document) error {
	if len(d.Boots) == 0 {
		return errors.New("-o log is for --platform tdx or tpm")
	}
	l, err := d.Log(d.Boots[0].Platform)
	if err == nil && slices.ContainsFunc(d.Boots, func(b predict.BootPlan) bool { return b.Platform != d.Boots[0].Platform }) {
		err = errors.New("-o log is for one platform: give --platform tdx or tpm")
	}
	if err != nil {
		return err
	}
	_, err = c.out.Write(l.Marshal())
	return err
}

// printPredicted writes a prediction for people.
func printPredicted(out io.Writer, d *predict.Document) error {
	var b strings.Builder
	t := table{head: []string{"PLATFORM", "REGISTER", "VALUE", "WHEN"}}
	for _, v := range d.Values {
		register := v.Register
		if v.Bank != "" {
			register += "/" + v.Bank
		}
		t.rows = append(t.rows, []string{string(v.Platform), register, v.Value, v.When.String()})
	}
	t.print(&b)
	if len(d.Unpredicted) > 0 {
		b.WriteString("\nNot predicted:\n")
	}
	for _, u := range d.Unpredicted {
		name := string(u.Platform)
		for _, part := range []string{u.Register, u.When.String()} {
			if part != "" {
				name += ", " + part
			}
		}
		for _, why := range u.Reasons {
			fmt.Fprintf(&b, "  %s: %s\n", name, why)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (c *cli) referenceValues(d *predict.Document) ([]refvalue.Value, error) {
	values := d.ReferenceValues()
	if len(values) == 0 {
		return nil, errors.New("no policy asks for any of the predicted values")
	}
	return values, nil
}

// printRefValues writes a document for each value, as kbsctl apply takes them.
func (c *cli) printRefValues(d *predict.Document, o outputFlags) error {
	values, err := c.referenceValues(d)
	if err != nil {
		return err
	}
	for i, v := range values {
		if i > 0 {
			if _, err := fmt.Fprintln(c.out, "---"); err != nil {
				return err
			}
		}
		spec := map[string]any{"value": v.Value}
		if !o.validEnds.IsZero() {
			spec["expires"] = o.validEnds.Format(time.RFC3339)
		}
		err := c.printJSON(map[string]any{"kind": "RefValue", "metadata": map[string]string{"name": v.Name}, "spec": spec})
		if err != nil {
			return err
		}
	}
	return nil
}

// printSigned writes the values as one document with a signature, with what
// they were made from.
func (c *cli) printSigned(d *predict.Document, o outputFlags) error {
	values, err := c.referenceValues(d)
	if err != nil {
		return err
	}
	key, err := c.readSigner(o.key)
	if err != nil {
		return err
	}
	doc := refvalue.Document{ID: o.id, NotBefore: o.validBegins, NotAfter: o.validEnds, Values: values, Provenance: d.Provenance()}
	raw, err := doc.Sign(key, o.keyID)
	if err != nil {
		return err
	}
	_, err = c.out.Write(raw)
	return err
}
