module github.com/vouchsafe-cc/vouchsafe/rootfs

go 1.26.0

replace github.com/vouchsafe-cc/vouchsafe => ../

replace github.com/vouchsafe-cc/vouchsafe/measure => ../measure
