package boot

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/cmdline"
)

// maxCommandLine bounds the text in bytes; Linux itself takes 2048 on amd64.
const maxCommandLine = 64 << 10

// parameters are those of the kernel command line that are for an init; the
// agent's own are read by package settings.
type parameters struct {
	network     *network
	verity      *verity
	keepModules bool // vouchsafe.insecure_module_loading
}

func parse(text string) (p parameters, err error) {
	if len(text) > maxCommandLine {
		return p, fmt.Errorf("%d bytes long, at most %d are read", len(text), maxCommandLine)
	}
	fstype, dns := "erofs", false
	for _, word := range cmdline.Words(text) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "ip":
			p.network, err = parseNetwork(value)
		case "dm-mod.create":
			p.verity, err = parseVerity(value)
		case "rootfstype":
			fstype = value
		case "vouchsafe.dhcp_dns":
			dns, err = strconv.ParseBool(value)
		case "vouchsafe.insecure_module_loading":
			p.keepModules, err = strconv.ParseBool(value)
		}
		if err != nil {
			return p, fmt.Errorf("%s: %w", key, err)
		}
	}
	if p.verity != nil {
		p.verity.fstype = fstype
	}
	if p.network != nil {
		p.network.lendDNS = dns && p.network.lend
	}
	return p, nil
}
