package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// machines is the story with guests that are booted.
type machines struct {
	*world.Fleet
	*billboard
	world  *world.World
	image  world.GuestImage
	secret string
}

// machineActs are the acts of a story whose guests are virtual machines with an
// image.
func machineActs(w *world.World, b *billboard, image world.GuestImage) []act {
	m := &machines{world: w, billboard: b, image: image, secret: "the secret word is " + rand.Text()}
	refused := func(try func() func(context.Context) (world.Refusal, error)) func(context.Context) ([]string, error) {
		return func(ctx context.Context) ([]string, error) { return m.told(try()(ctx)) }
	}
	type refusal = func(context.Context) (world.Refusal, error)
	return []act{
		{"1 broker, registry, TPM, image, prediction", m.prepare},
		{"2 a guest boots, proves itself and runs it", m.boot},
		{"3a refused: another kernel command line", refused(func() refusal { return m.OtherMachineCommandLine })},
		{"3b refused: another initramfs", refused(func() refusal { return m.OtherMachineInitrd })},
		{"3c refused: other init-data", refused(func() refusal { return m.OtherMachineInitData })},
		{"3d refused: the TPM of another machine", refused(func() refusal { return m.OtherMachineTPM })},
		{"3e refused: an event log that does not replay", refused(func() refusal { return m.UnexplainedLog })},
		{"4 the audit log proves itself", m.audit},
	}
}

func (m *machines) prepare(ctx context.Context) (lines []string, err error) {
	accelerator := qemu.Accelerator(ctx, "", filepath.Join(m.image.Dir, "vmlinuz"))
	if m.Fleet, err = m.world.NewFleet(ctx, m.image, accelerator, m.secret); err != nil {
		return nil, err
	}
	how := "QEMU emulates the processor: KVM does not run a kernel here"
	if accelerator == qemu.KVM {
		how = "QEMU with KVM"
	}
	return []string{
		how,
		"swtpm: a software TPM, with an endorsement key that its own manufacturer certified",
		"measure enroll: its attestation key, by credential activation",
		"kbsctl image encrypt, sign: " + m.Ref,
		"rootfs build predicted PCR 4, 7, 9 and 11; its signed document is applied as it is",
	}, nil
}

func (m *machines) boot(ctx context.Context) ([]string, error) {
	out, err := m.RunImage(ctx, m.Config())
	if err != nil {
		return nil, err
	}
	if !strings.Contains(out, m.secret) {
		return nil, fmt.Errorf("the container's output lacks the secret: %q", out)
	}
	n, err := attestations(ctx, m.Broker)
	if err != nil {
		return nil, err
	}
	if n != 1 {
		return nil, fmt.Errorf("the guest attested %d times, not once", n)
	}
	return []string{
		"OVMF measures kernel, command line and initramfs into the TPM; guest-agent is process 1",
		"it quotes the registers over the broker's nonce: they are what was predicted",
		"it pulls the image over its network, decrypts it and starts the container, which says:",
		"    " + strings.SplitN(out, "\n", 2)[0],
	}, nil
}

func (m *machines) audit(ctx context.Context) ([]string, error) {
	out, err := m.Broker.Ctl(ctx, "audit", "verify", "--log-key", m.Broker.State+"/audit.pub")
	if err != nil {
		return nil, err
	}
	entries, err := m.Broker.AuditEntries(ctx)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, e := range entries {
		count[e.Ticket]++
	}
	for _, t := range m.tickets {
		if count[t] != 1 {
			return nil, fmt.Errorf("ticket %s has %d entries in the log, not one", t, count[t])
		}
	}
	return append(strings.Split(strings.TrimSpace(out), "\n"), fmt.Sprintf("one entry for each of the %d refusals", len(m.tickets))), nil
}
