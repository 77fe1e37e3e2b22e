module github.com/vouchsafe-cc/vouchsafe

go 1.26.0
