"""Scripts that make what results/ and the packages hold."""
