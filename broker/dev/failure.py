"""What ends development mode before its story is told."""


class StoryFailed(Exception):
    """A step of the story did not go as it must; the sentence says which."""
