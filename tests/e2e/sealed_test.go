package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// seal signs the name of the stage's secret with a new key and returns the sealed
// secret and the file with the public key.
func seal(t *testing.T) (text, jwk string) {
	t.Helper()
	owner, err := stage.Keygen(t.Context(), "owner")
	if err != nil {
		t.Fatal(err)
	}
	jwk = owner + ".jwk"
	text, err = stage.Run(t.Context(), "kbsctl", "seal", world.SecretResource, "--sign", owner+".key", "--kid", "kbs:///"+world.SealerResource, "--jwk", jwk)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(text), jwk
}

// The pod's specification names a secret; the host sees the name, and the
// container the value. A name that the host signed itself starts nothing.
func TestASealedSecretIsOpenedInTheGuestAlone(t *testing.T) {
	text, jwk := seal(t)
	forged, _ := seal(t)
	if _, err := stage.Broker.Ctl(t.Context(), "create", "resource", world.SealerResource, "--from-file", jwk, "--overwrite"); err != nil {
		t.Fatal(err)
	}
	command := []string{"/bin/sh", "-c", `echo "it says: $WORD"`}
	for name, sealed := range map[string]string{"sealed": text, "forged": forged} {
		t.Run(name, func(t *testing.T) {
			env := "WORD=" + sealed
			g, err := stage.Launch(t.Context(), name, stage.vendor, world.CommandLine, world.Pod{Image: stage.ref, Command: command, Env: []string{env}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := g.Stop(); err != nil {
					t.Error(err)
				}
			})
			if err := g.Kata().Pod(t.Context()); err != nil {
				t.Fatal(err)
			}
			config, err := stage.ImageConfig(t.Context(), stage.ref)
			if err != nil {
				t.Fatal(err)
			}
			config.Entrypoint, config.Cmd, config.Env = command, nil, append(config.Env, env)
			err = g.Kata().Container(t.Context(), "app", stage.ref, config)
			if name == "forged" {
				if err == nil || !strings.Contains(err.Error(), "sealed_secret_invalid (ticket ") || strings.Contains(err.Error(), world.SealerResource) {
					t.Errorf("the host was told %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if out, err := g.Kata().Output(t.Context(), "app", ""); err != nil || out != "it says: "+stage.greeting+"\n" {
				t.Errorf("the container said %q, %v", out, err)
			}
			log, err := os.ReadFile(filepath.Join(g.Dir, "agent.log"))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(log), stage.greeting) {
				t.Error("the secret is in the agent's log")
			}
		})
	}
}
