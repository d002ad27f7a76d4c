"""From the checked section about the audit record to its frozen settings."""

from pathlib import Path as FilePath

from broker.config.findings import Scene
from broker.config.settings import AuditSettings, PeopleSettings


def build_audit(scene: Scene, directory: FilePath) -> AuditSettings:
    """The settings of a section in which the checks found nothing."""
    section = scene.file.audit
    return AuditSettings(
        directory=directory,
        segment_size=section.segment_size,
        write_timeout=section.write_timeout,
        people=PeopleSettings(
            names=section.people.names,
            period=section.people.period,
            directory=scene.places.under_data(
                ("audit", "people", "directory"),
                section.people.directory,
                data_dir=scene.file.data_dir,
                name="people",
            ),
        ),
    )
