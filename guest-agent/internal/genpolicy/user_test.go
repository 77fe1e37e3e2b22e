package genpolicy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\n# a comment: of: 3:colons\nwww-data:x:33:34::/var/www:/bin/false\nwww-data:x:1:1::/:/\nbad:x:one:1::/:/\nhuge:x:4294967296:1::/:/\n"
	group  = "root:x:0:\nwww-data:x:34:\nssl:x:50:alice,www-data\nother:x:51:alice\nbad:x:-1:www-data\n"
)

func usersFiles(_ context.Context, names ...string) (map[string][]byte, error) {
	if !slices.Equal(names, []string{userFile, groupFile}) {
		return nil, errors.New("other files were asked for")
	}
	return map[string][]byte{userFile: []byte(passwd), groupFile: []byte(group)}, nil
}

// A user's name means what the image's files say.
func TestImageUser(t *testing.T) {
	for user, want := range map[string]identity{
		"":             {uid: 0, gids: []int64{0}},
		"root":         {uid: 0, gids: []int64{0}},
		"7":            {uid: 7, gids: []int64{0}},
		"7:8":          {uid: 7, gids: []int64{8}, sure: true},
		"www-data":     {uid: 33, gids: []int64{34}, sure: true, groups: []int64{50}},
		"www-data:7":   {uid: 33, gids: []int64{7}, sure: true, groups: []int64{50}},
		"www-data:ssl": {uid: 33, gids: []int64{50}, sure: true, groups: []int64{50}},
		"7:ssl":        {uid: 7, gids: []int64{50}, sure: true},
	} {
		id, err := imageUser(t.Context(), Image{User: user, Files: usersFiles})
		if err != nil || id.uid != want.uid || !slices.Equal(id.gids, want.gids) || id.sure != want.sure || !slices.Equal(id.groups, want.groups) {
			t.Errorf("%q: %+v, %v", user, id, err)
		}
	}
	for _, user := range []string{"nobody", "bad", "huge", "-1", "www-data:none", "www-data:bad", ":none", "4294967296"} {
		if id, err := imageUser(t.Context(), Image{User: user, Files: usersFiles}); err == nil {
			t.Errorf("%q: %+v", user, id)
		}
	}
	if _, err := imageUser(t.Context(), Image{User: "www-data"}); err == nil || !strings.Contains(err.Error(), "runAsUser") {
		t.Error(err)
	}
	unreadable := func(context.Context, ...string) (map[string][]byte, error) { return nil, errors.New("encrypted") }
	if _, err := imageUser(t.Context(), Image{User: "www-data", Files: unreadable}); err == nil || !strings.Contains(err.Error(), "runAsUser") {
		t.Error(err)
	}
}

// The container runs as that user, and as nobody else.
func TestUserByName(t *testing.T) {
	text := generate(t, "kind: Pod\nmetadata: {name: pod1}\nspec: {automountServiceAccountToken: false, containers: [{name: side, image: registry.example/named:1}]}\n", Options{})
	for name, c := range map[string]struct {
		user *agent.User
		want bool
	}{
		"as the files say": {&agent.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 50}}, true},
		"as root":          {&agent.User{}, false},
		"root's group":     {&agent.User{UID: 33}, false},
		"another group":    {&agent.User{UID: 33, GID: 34, AdditionalGids: []uint32{51}}, false},
	} {
		m := sideRequest()
		m.Storages[0] = pulled(sideID, "registry.example/named:1")
		m.OCI.Process.Args, m.OCI.Process.User = []string{"/x"}, c.user
		if err := judge(t, engine(t, text), m); (err == nil) != c.want {
			t.Errorf("%s: %v", name, why(err))
		}
	}
}

func FuzzUsers(f *testing.F) {
	f.Add(passwd, group, "www-data:ssl")
	f.Add(strings.Repeat(":", 255), strings.Repeat("a:x:0:"+strings.Repeat(",", 255)+"\n", 3), ":")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, users, groups, user string) {
		files := func(context.Context, ...string) (map[string][]byte, error) {
			return map[string][]byte{userFile: []byte(users), groupFile: []byte(groups)}, nil
		}
		id, err := imageUser(t.Context(), Image{User: user, Files: files})
		if err != nil {
			return
		}
		for _, n := range slices.Concat([]int64{id.uid}, id.gids, id.groups) {
			if n < 0 || n > 1<<32-1 {
				t.Fatalf("%q became %+v", user, id)
			}
		}
	})
}
