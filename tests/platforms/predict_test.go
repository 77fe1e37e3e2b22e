package platforms

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/predict/predicttest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// run runs one of the commands in the stage's directory.
func (s *stage) run(program string, args ...string) string {
	s.Helper()
	out, err := s.World.Run(s.Context(), program, args...)
	s.must(err)
	return out
}

// save keeps what a command printed.
func (s *stage) save(name, text string) {
	s.Helper()
	s.must(os.WriteFile(s.Path(name), []byte(text), 0o600))
}

// predict predicts for a TD of the stage's virtual machine.
func (s *stage) predict(commandLine string, more ...string) string {
	s.Helper()
	return s.run("measure", append([]string{
		"predict", "--platform", "tdx", "--firmware", "vm/OVMF.fd", "--edition", "202502", "--kernel", "vm/vmlinuz", "--initrd", "vm/initrd.img",
		"--cmdline", commandLine, "--memory", "2G", "--machine", "vm/machine", "--kernel-header", "plain",
	}, more...)...)
}

// A virtual machine's reference values come from its files alone, signed; the
// broker takes them as they are, and a TD that measures to them gets the secret.
// One with another command line does not, and is told apart in words.
func TestPredictedVirtualMachine(t *testing.T) {
	s := newStage(t, func(s *stage) string {
		s.must(os.Mkdir(s.Path("vm"), 0o700), predicttest.Write(s.Path("vm")))
		s.run("measure", "sim", "tdx", "vendor", "intel")
		s.run("measure", "sim", "tdx", "collateral", "--vendor", "intel", "--out", "collateral")
		return fmt.Sprintf(`
[verifier.tdx]
enabled = true
insecure_simulated_roots = [{name = "lab", path = %q}]

[collateral]
enabled = true
files = [%q]
`, s.Path("intel", "root.pem"), s.Path("collateral"))
	})
	s.acceptRoot("lab")
	s.save("prediction.json", s.predict("console=ttyS0 quiet", "-o", "json"))

	// The signer, and what it may vouch for.
	s.run("kbsctl", "image", "keygen", "--out", "release")
	_, err := s.Broker.Ctl(t.Context(), "create", "signer", "release", "--key", s.Path("release.pub"), "--prefix", "")
	s.must(err)
	s.save("guest.cbor", s.run("measure", "predict", "--prediction", "prediction.json", "-o", "corim", "--id", "guest-1", "--key", "release.key", "--ends", "2099-12-31"))
	out, err := s.Broker.Ctl(t.Context(), "apply", "-f", s.Path("guest.cbor"))
	s.must(err)
	if !strings.Contains(out, "refset/guest-1 created") {
		t.Errorf("registered: %s", out)
	}
	about, err := s.Broker.Ctl(t.Context(), "describe", "refset", "guest-1")
	s.must(err)
	for _, part := range []string{"2100-01-01", "firmware sha256:", "kernel sha256:", "initrd sha256:", "cmdline sha256:"} {
		if !strings.Contains(about, part) {
			t.Errorf("the set does not say %q: %s", part, about)
		}
	}

	guest := s.predicted("guest", "prediction.json")
	s.know(map[string]any{"xfam": "e702060000000000"})
	if got, err := s.fetch(guest); err != nil || got != value {
		t.Fatalf("%q, %v", got, err)
	}

	s.save("other.json", s.predict("console=ttyS0 init=/bin/sh", "-o", "json"))
	other := s.predicted("other", "other.json")
	_, err = s.fetch(other)
	s.refused(err, "rtmr_2", "")
	s.save("evidence.json", s.run("measure", "sim", "tdx", "evidence", "other", "--report-data", "00"))
	out, err = s.World.Run(t.Context(), "measure", "diff", "prediction.json", "evidence.json", "--try", "cmdline=console=ttyS0 init=/bin/sh")
	if err == nil || !strings.Contains(out, "the command line differs") || !strings.Contains(out, "it is that of --try") || strings.Count(out, "DIFFERENT") != 1 {
		t.Errorf("%s, %v", out, err)
	}
}

// The message to the field's reference value provider, and documents for apply,
// say the same as the signed document.
func TestReferenceValuesAreTakenAsTheyAre(t *testing.T) {
	s := newStage(t, func(s *stage) string {
		s.must(os.Mkdir(s.Path("vm"), 0o700), predicttest.Write(s.Path("vm")))
		return ""
	})
	known := func() map[string]string {
		out, err := s.Broker.Ctl(t.Context(), "get", "refvalues", "-o", "json")
		s.must(err)
		var all struct {
			Items []struct {
				Name  string
				Value json.RawMessage
			}
		}
		s.must(json.Unmarshal([]byte(out), &all))
		values := map[string]string{}
		for _, v := range all.Items {
			var list []string
			s.must(json.Unmarshal(v.Value, &list))
			slices.Sort(list)
			values[v.Name] = strings.Join(list, " ")
		}
		return values
	}
	var first map[string]string
	for form, file := range map[string]string{"rvps": "values.json", "refvalue": "values.yaml"} {
		s.save(file, s.predict("console=ttyS0 quiet", "-o", form))
		_, err := s.Broker.Ctl(t.Context(), "apply", "-f", s.Path(file))
		s.must(err)
		got := known()
		if first == nil {
			first = got
		}
		for _, name := range []string{"mr_td", "rtmr_0", "rtmr_1", "rtmr_2", "tdvfkernel", "tdvfkernelparams"} {
			if got[name] == "" || got[name] != first[name] {
				t.Errorf("%s: %s is %q", form, name, got[name])
			}
			_, err := s.Broker.Ctl(t.Context(), "delete", "refvalue", name)
			s.must(err)
		}
	}
}

// predicted starts a simulated TD that stands for the predicted virtual machine.
func (s *stage) predicted(name, prediction string) *tdx.Simulator {
	s.Helper()
	s.run("measure", "sim", "tdx", "guest", "--vendor", "intel", "--out", name, "--prediction", prediction)
	guest, err := tdx.OpenSimulator(s.Path(name))
	s.must(err)
	return guest
}
