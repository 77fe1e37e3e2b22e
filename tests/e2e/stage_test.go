// Package e2e runs the steps of the demo as separate tests: real programs, a
// real registry, a real image, real containers; only the chip is simulated.
package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/programs"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// stage is what all tests of this package share: one broker, one registry, one
// encrypted and signed image. Each test brings its own guests.
var stage struct {
	*world.World
	vendor, stranger string
	ref, signer      string
	measurement      string
	greeting         string
}

func TestMain(m *testing.M) {
	code, err := setUp(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// missing names what this machine lacks for the end-to-end tests.
func missing() string {
	if os.Geteuid() != 0 {
		return "root"
	}
	for _, tool := range []string{"runc", "mount", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool
		}
	}
	return ""
}

func setUp(m *testing.M) (code int, err error) {
	if what := missing(); what != "" {
		if os.Getenv("CI") != "" {
			return 1, fmt.Errorf("CI lacks %s", what)
		}
		fmt.Fprintf(os.Stderr, "e2e: SKIPPED, all of it: this needs %s\n", what)
		return 0, nil
	}
	dir, err := os.MkdirTemp("", "vouchsafe-e2e-")
	if err != nil {
		return 1, err
	}
	ctx := context.Background()
	bin := filepath.Join(dir, "bin")
	if err := programs.Build(ctx, bin, "measure/cmd/measure", "kbs/cmd/kbs", "kbs/cmd/kbsctl", "guest-agent/cmd/guest-agent"); err != nil {
		return 1, err
	}
	if stage.World, err = world.New(filepath.Join(dir, "world"), bin); err != nil {
		return 1, err
	}
	defer func() {
		if closed := stage.Close(); err == nil {
			err = closed
		}
		if err == nil && code == 0 {
			err = os.RemoveAll(dir)
		} else {
			fmt.Fprintln(os.Stderr, "e2e: logs are in", dir)
		}
	}()
	if err := set(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func set(ctx context.Context) (err error) {
	if stage.vendor, err = stage.Vendor(ctx, "demo"); err != nil {
		return err
	}
	if stage.stranger, err = stage.Vendor(ctx, "stranger"); err != nil {
		return err
	}
	if err = stage.StartBroker(ctx, map[string]string{"demo": stage.vendor + "/root.pem"}); err != nil {
		return err
	}
	if err = stage.StartRegistry(); err != nil {
		return err
	}
	cache, err := filepath.Abs(filepath.Join("..", "..", ".cache"))
	if err != nil {
		return err
	}
	source, err := stage.Image(ctx, cache)
	if err != nil {
		return err
	}
	if stage.ref, err = stage.Encrypt(ctx, source, "demo/nginx:1"); err != nil {
		return err
	}
	if stage.signer, err = stage.Keygen(ctx, "shipper"); err != nil {
		return err
	}
	if err = stage.Sign(ctx, stage.ref, stage.signer); err != nil {
		return err
	}
	if stage.measurement, err = stage.RegisterMeasurement(ctx, world.CommandLine); err != nil {
		return err
	}
	stage.greeting = "the secret word is " + rand.Text()
	return stage.Policies(ctx, stage.signer, stage.greeting)
}
