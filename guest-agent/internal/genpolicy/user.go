package genpolicy

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// user is the pod's word, or the image's. A name of the image's means what the
// image's own files say, which is where a runtime looks it up.
func (p *pod) user(ctx context.Context, out *containerData, c container, image Image) error {
	ps, cs := p.podSpec.SecurityContext, c.SecurityContext
	uid := either(cs.RunAsUser, ps.RunAsUser)
	gid := either(cs.RunAsGroup, ps.RunAsGroup)
	found := identity{gids: []int64{0}}
	switch {
	case uid != nil:
		found.uid = *uid
	default:
		var err error
		if found, err = imageUser(ctx, image); err != nil {
			return err
		}
	}
	switch {
	case gid != nil:
		found.gids = []int64{*gid}
	case !found.sure && found.uid != 0:
		// The primary group of the image's own list of users, if it has the user:
		// by custom the one with the user's number.
		found.gids = []int64{0, found.uid}
	}
	out.UID, out.GIDs = found.uid, found.gids
	out.Groups = slices.Concat(out.GIDs, found.groups, ps.SupplementalGroups)
	if ps.FSGroup != nil {
		out.Groups = append(out.Groups, *ps.FSGroup)
	}
	return nil
}

func either(a, b *int64) *int64 {
	if a != nil {
		return a
	}
	return b
}

// identity is whom a process runs as.
type identity struct {
	uid    int64
	gids   []int64 // one of them is the primary group
	sure   bool    // there is no doubt about it
	groups []int64 // further ones that the image's files name
}

const (
	userFile  = "etc/passwd"
	groupFile = "etc/group"
)

// imageUser is the image's own user: "USER" or "USER:GROUP", each a number or a
// name (OCI image-spec, config.md, User).
func imageUser(ctx context.Context, image Image) (identity, error) {
	user, group, _ := strings.Cut(image.User, ":")
	if user == "" || user == "root" {
		user = "0"
	}
	uid, userIsNumber := number(user)
	gid, groupIsNumber := number(group)
	groupIsNumber = groupIsNumber || group == ""
	id := identity{uid: uid, gids: []int64{0}}
	if group != "" {
		id.gids, id.sure = []int64{gid}, true
	}
	if userIsNumber && groupIsNumber {
		return id, nil
	}
	if image.Files == nil {
		return id, fmt.Errorf("the image runs as user %q, and its files are not at hand: give the number as runAsUser", image.User)
	}
	files, err := image.Files(ctx, userFile, groupFile)
	if err != nil {
		return id, fmt.Errorf("the image runs as user %q, and whom its files mean by that cannot be read; give the number as runAsUser: %w", image.User, err)
	}
	if !userIsNumber {
		u, ok := findUser(files[userFile], user)
		if !ok {
			return id, fmt.Errorf("the image runs as user %q, whom its /%s does not have", user, userFile)
		}
		id.uid, id.groups = u.uid, groupsOf(files[groupFile], user)
		if group == "" {
			id.gids, id.sure = u.gids, true
		}
	}
	if !groupIsNumber {
		g, ok := findGroup(files[groupFile], group)
		if !ok {
			return id, fmt.Errorf("the image runs as group %q, which its /%s does not have", group, groupFile)
		}
		id.gids, id.sure = []int64{g}, true
	}
	return id, nil
}

// number reads a user's or a group's.
func number(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0 && n <= math.MaxUint32
}

// records are the lines of a file such as passwd(5) and group(5). Lines that are
// none of them are passed over, as the C library does.
func records(file []byte, fields int) [][]string {
	var all [][]string
	for line := range strings.Lines(string(file)) {
		if parts := strings.Split(strings.TrimSpace(line), ":"); len(parts) >= fields && parts[0] != "" {
			all = append(all, parts)
		}
	}
	return all
}

// findUser reads passwd(5): NAME:PASSWORD:UID:GID:... The first one counts.
func findUser(file []byte, name string) (identity, bool) {
	for _, r := range records(file, 4) {
		uid, ok1 := number(r[2])
		gid, ok2 := number(r[3])
		if r[0] == name {
			return identity{uid: uid, gids: []int64{gid}}, ok1 && ok2
		}
	}
	return identity{}, false
}

// findGroup reads group(5): NAME:PASSWORD:GID:MEMBER,MEMBER.
func findGroup(file []byte, name string) (int64, bool) {
	for _, r := range records(file, 3) {
		if gid, ok := number(r[2]); r[0] == name {
			return gid, ok
		}
	}
	return 0, false
}

// groupsOf are the groups that have a user as a member.
func groupsOf(file []byte, name string) []int64 {
	var all []int64
	for _, r := range records(file, 4) {
		if gid, ok := number(r[2]); ok && slices.Contains(strings.Split(r[3], ","), name) {
			all = append(all, gid)
		}
	}
	return all
}
