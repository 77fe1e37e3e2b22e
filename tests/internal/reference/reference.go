// Package reference renders the reference pages of docs/reference.
package reference

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Programs are the commands that have a page.
var Programs = []string{"kbs", "kbsctl", "measure", "guest-agent", "rootfs"}

// BrokerPages are those that the broker writes itself (`kbs reference`).
var BrokerPages = []string{"openapi.json", "api.md", "audit.md", "audit-event.schema.json", "config.md", "config.schema.json", "metrics.md"}

// Write renders all pages into dir.
func Write(ctx context.Context, dir, bin string) error {
	pages := map[string]string{"codes.md": Codes()}
	var err error
	if pages["commands.md"], err = Commands(ctx, bin); err != nil {
		return err
	}
	for _, name := range BrokerPages {
		if pages[name], err = brokerPage(ctx, bin, name); err != nil {
			return err
		}
	}
	agent, err := exec.CommandContext(ctx, filepath.Join(bin, "guest-agent"), "reference").Output()
	if err != nil {
		return fmt.Errorf("guest-agent reference: %w", err)
	}
	pages[AgentPage] = generated + string(agent)
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func brokerPage(ctx context.Context, bin, name string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "kbs"), "reference", name).Output()
	if err != nil {
		return "", fmt.Errorf("kbs reference %s: %w", name, err)
	}
	if strings.HasSuffix(name, ".md") {
		return generated + string(out), nil
	}
	return string(out), nil
}

// AgentPage is the page of the agent's methods.
const AgentPage = "agent.md"

const generated = "<!-- Generated from the code by `make generate`. -->\n\n"

// Codes renders the table of refusal codes.
func Codes() string {
	var b strings.Builder
	b.WriteString(generated + "# Codes of refusal\n\n" +
		"A refusal shows a code and, where a broker recorded it, a ticket: `policy_denied (ticket 7QK2-M9TD)`. Both are safe to print " +
		"anywhere. `kbsctl explain ticket/7QK2-M9TD` tells an administrator the reason.\n\n" +
		"| code | HTTP status | exit code | meaning |\n|---|---|---|---|\n")
	for _, e := range fault.Table() {
		fmt.Fprintf(&b, "| `%s` | %d %s | %d | %s |\n", e.Code, e.Status, http.StatusText(e.Status), e.Exit, e.Meaning)
	}
	b.WriteString("\n## Exit codes\n\n| code | meaning |\n|---|---|\n")
	for _, e := range []struct {
		code    int
		meaning string
	}{
		{fault.ExitOK, "ok"},
		{fault.ExitUsage, "usage, or unknown"},
		{fault.ExitRefused, "refused by policy"},
		{fault.ExitEvidence, "evidence or signature invalid"},
		{fault.ExitNotFound, "not found"},
		{fault.ExitConflict, "conflict: the object changed since it was read"},
		{fault.ExitUnavailable, "unavailable or timed out"},
		{fault.ExitDifferent, "differences found"},
	} {
		fmt.Fprintf(&b, "| %d | %s |\n", e.code, e.meaning)
	}
	return b.String()
}

// Commands renders the help text of every command and its subcommands.
func Commands(ctx context.Context, bin string) (string, error) {
	var b strings.Builder
	b.WriteString(generated + "# Commands\n")
	for _, p := range Programs {
		if err := help(ctx, &b, bin, p, nil); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// subcommand is a line of cobra's lists of commands: their descriptions start
// with a capital letter, unlike the words of examples.
var subcommand = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) +[A-Z]`)

func help(ctx context.Context, b *strings.Builder, bin, program string, path []string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), append(append([]string{}, path...), "--help")...)
	cmd.Env = []string{"HOME=/nonexistent"}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s %s --help: %w", program, strings.Join(path, " "), err)
	}
	title := strings.Join(append([]string{program}, path...), " ")
	fmt.Fprintf(b, "\n%s %s\n\n```\n%s\n```\n", strings.Repeat("#", min(2+len(path), 4)), title, strings.TrimSpace(string(out)))
	list, _, _ := strings.Cut(string(out), "\nFlags:")
	for _, m := range subcommand.FindAllStringSubmatch(list, -1) {
		if m[1] == "help" || m[1] == "completion" {
			continue
		}
		if err := help(ctx, b, bin, program, append(append([]string{}, path...), m[1])); err != nil {
			return err
		}
	}
	return nil
}
