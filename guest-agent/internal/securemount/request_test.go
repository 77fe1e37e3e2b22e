package securemount

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// What the field's runtime sends (guest-protocol 17.1).
func fromKata() map[string]string {
	return map[string]string{
		"deviceId": "8:16", "sourceType": "empty", "targetType": "fileSystem", "filesystemType": "ext4",
		"mkfsOpts": "-O ^has_journal -m 0 -i 163840 -I 128", "encryptionType": "luks2", "dataIntegrity": "true",
	}
}

func TestParse(t *testing.T) {
	mkfs := strings.Fields("-O ^has_journal -m 0 -i 163840 -I 128")
	v, err := Parse("block-device", fromKata(), nil, "/run/x")
	must(t, err)
	want := Volume{Device: Device{Major: 8, Minor: 16}, Format: true, Integrity: true, Filesystem: Ext4, MkfsOptions: mkfs, MountPoint: "/run/x"}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("got  %+v\nwant %+v", v, want)
	}
	v, err = Parse("BlockDevice", map[string]string{
		"device_path": "/dev/vdb", "source_type": "encrypted", "target_type": "device", "encryption_type": "luks2",
		"key": "kbs:///default/volume/1", "mapper_name": "data",
	}, []string{"ro"}, "/dev/data")
	must(t, err)
	want = Volume{Device: Device{Path: "/dev/vdb"}, Key: "kbs:///default/volume/1", Integrity: true, MountPoint: "/dev/data", Name: "data", MountFlags: unix.MS_RDONLY}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("got  %+v\nwant %+v", v, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string // "-" removes
		want fault.Code
	}{
		"an option nobody knows":      {map[string]string{"trust": "me"}, fault.InvalidRequest},
		"one option in two spellings": {map[string]string{"device_id": "8:17"}, fault.InvalidRequest},
		"encryption twice":            {map[string]string{"encrypt_type": "luks2"}, fault.InvalidRequest},
		"no encryption":               {map[string]string{"encryptionType": "-"}, fault.InvalidRequest},
		"plain":                       {map[string]string{"encryptionType": "none"}, fault.InvalidRequest},
		"zfs":                         {map[string]string{"encryptionType": "zfs"}, fault.Unsupported},
		"no source":                   {map[string]string{"sourceType": "-"}, fault.InvalidRequest},
		"no target":                   {map[string]string{"targetType": "-"}, fault.InvalidRequest},
		"no device":                   {map[string]string{"deviceId": "-"}, fault.InvalidRequest},
		"a relative device":           {map[string]string{"deviceId": "-", "devicePath": "vdb"}, fault.InvalidRequest},
		"a device that is no number":  {map[string]string{"deviceId": "8:x"}, fault.InvalidRequest},
		"there already, without key":  {map[string]string{"sourceType": "encrypted"}, fault.InvalidRequest},
		"an empty key":                {map[string]string{"key": ""}, fault.InvalidRequest},
		"persistent, no integrity":    {map[string]string{"key": "kbs:///a/b/c", "dataIntegrity": "false"}, fault.InvalidRequest},
		"integrity, perhaps":          {map[string]string{"dataIntegrity": "perhaps"}, fault.InvalidRequest},
		"another filesystem":          {map[string]string{"filesystemType": "btrfs"}, fault.InvalidRequest},
		"a file in mkfsOpts":          {map[string]string{"mkfsOpts": "-d /etc"}, fault.InvalidRequest},
		"a device in mkfsOpts":        {map[string]string{"mkfsOpts": "-J device=sda"}, fault.InvalidRequest},
		"an offset in mkfsOpts":       {map[string]string{"mkfsOpts": "-E offset=1"}, fault.InvalidRequest},
		"a word in mkfsOpts":          {map[string]string{"mkfsOpts": "sda"}, fault.InvalidRequest},
		"half of mkfsOpts":            {map[string]string{"mkfsOpts": "-m"}, fault.InvalidRequest},
		"a shell in mkfsOpts":         {map[string]string{"mkfsOpts": "-L $(id)"}, fault.InvalidRequest},
		"a path as name":              {map[string]string{"mapperName": "../control"}, fault.InvalidRequest},
		"a device with a filesystem":  {map[string]string{"targetType": "device"}, fault.InvalidRequest},
		"mkfs of what is there":       {map[string]string{"sourceType": "encrypted", "key": "kbs:///a/b/c"}, fault.InvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			options := fromKata()
			maps.Copy(options, c.set)
			maps.DeleteFunc(options, func(_, value string) bool { return value == "-" })
			_, err := Parse("block-device", options, nil, "/run/x")
			code(t, err, c.want)
		})
	}
	for _, volumeType := range []string{"", "alibaba-cloud-oss", "oss", "nfs"} {
		_, err := Parse(volumeType, fromKata(), nil, "/run/x")
		code(t, err, fault.Unsupported)
	}
	_, err := Parse("block-device", fromKata(), []string{"remount"}, "/run/x")
	code(t, err, fault.InvalidRequest)
	_, err = Parse("block-device", fromKata(), nil, "run/x")
	code(t, err, fault.InvalidRequest)
}

func FuzzParse(f *testing.F) {
	f.Add("deviceId", "8:16", "mkfsOpts", "-m 0")
	f.Add("devicePath", "/dev/vdb", "mapper_name", "data")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		options := fromKata()
		options[a], options[c] = b, d
		v, err := Parse("block-device", options, nil, "/run/x")
		if err != nil {
			return
		}
		if !v.Integrity && v.Key != "" || strings.Contains(v.Name, "/") || v.Device == (Device{}) {
			t.Fatalf("accepted as %+v", v)
		}
		for _, o := range v.MkfsOptions {
			if strings.Contains(o, "/") {
				t.Fatalf("mkfs gets %q", o)
			}
		}
	})
}
