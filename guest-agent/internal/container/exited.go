package container

// Exited reports whether the first process has ended. Its number may be another
// process's then.
func (c *Container) Exited() bool { return c.init().hasExited() }
