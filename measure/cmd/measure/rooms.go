package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// A room is what the commands know about one platform. Each lives in a file of
// its own, platform_<name>.go, and is listed in rooms.
type room struct {
	platform measure.Platform
	device   bool // beside a CPU: its evidence is bound to another text (kbs-protocol 3.5)
	// flags adds the platform's own flags to 'measure verify'; nil if there are
	// none. Their names must not be those of another platform, unless they mean
	// the same and the first of the list has added them.
	flags func(cmd *cobra.Command)
	// recognises tells whether a file is this platform's evidence, as it is sent
	// or raw. It must be false for the evidence of every other platform.
	recognises func(raw []byte) bool
	// read turns the bytes of a file into evidence in its wire form: JSON of the
	// KBS protocol as it is, or the report or quote as the hardware hands it out.
	// An error says that the file is no evidence.
	read func(raw []byte) (measure.Evidence, error)
	// verifier makes the verifier that the flags describe.
	verifier func(ctx context.Context, s settings) (measure.Verifier, error)
	// needs lists the collateral that evidence needs beside what came with it;
	// nil where none can be fetched.
	needs func(ev measure.Evidence) ([]collateral.Name, error)
	// inspect decodes evidence in its wire form and judges nothing.
	inspect func(ev measure.Evidence) (inspection, error)
}

// settings are those flags of 'measure verify' that mean the same everywhere.
type settings struct {
	now func() time.Time
	// roots are the simulated vendors that are trusted by name.
	roots []namedFile
	// noCollateral waives what needs CRLs or TCB info, where none is at hand.
	noCollateral bool
	// debug and migratable accept guests that their host can look into, and such
	// as may be moved to a machine that nobody judged.
	debug, migratable bool
	// collateral is a directory of it; empty if there is none: see shelf.
	collateral string
	warn       func(error)
}

// shelf reads the directory of --collateral for a verifier that trusts these
// simulated vendors beside AMD and Intel. It returns nil without a directory.
func (s settings) shelf(amd []snp.SimulatedRoot, intel []dcap.SimulatedRoot) (*collateral.Shelf, error) {
	if s.collateral == "" {
		return nil, nil
	}
	trusted, err := collateral.Authorities(amd, intel)
	if err != nil {
		return nil, err
	}
	found, err := collateral.ReadFiles(s.collateral, trusted)
	if err != nil {
		return nil, err
	}
	for _, err := range found.Skipped {
		s.warn(err)
	}
	return found, nil
}

// rooms lists the platforms, in the order of the help.
func (c *cli) rooms() []room {
	snp, intel := c.snpRoom(), c.intelRooms()
	all := append([]room{snp}, intel...)
	all = append(all, azureRooms(snp, intel[0])...)
	all = append(all, c.tpmRoom(), c.ccaRoom(), c.nvidiaRoom())
	return append(all, c.sampleRooms()...)
}

func platformNames(rooms []room) []string {
	var out []string
	for _, r := range rooms {
		out = append(out, string(r.platform))
	}
	return out
}

// roomOf finds the room of a platform by its name, or by the evidence if there
// is no name.
func roomOf(rooms []room, name string, raw []byte) (room, error) {
	var found []room
	for _, r := range rooms {
		if name == string(r.platform) || name == "" && r.recognises(raw) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case name != "":
		return room{}, fmt.Errorf("--platform %q is not one of %s", name, strings.Join(platformNames(rooms), ", "))
	case len(found) == 0:
		return room{}, invalidEvidence{errors.New("this is no evidence of a platform that is known; --platform names one, and then tells what is wrong")}
	}
	return room{}, fmt.Errorf("this may be evidence of %s; say which with --platform", strings.Join(platformNames(found), " or "))
}

// isJSON tells a JSON object from raw bytes.
func isJSON(raw []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) }

// hasMembers reports whether a file is a JSON object with all of these members
// at its top.
func hasMembers(raw []byte, names ...string) bool {
	members, err := strictjson.Members(raw)
	if err != nil {
		return false
	}
	for _, n := range names {
		if _, there := members[n]; !there {
			return false
		}
	}
	return true
}
