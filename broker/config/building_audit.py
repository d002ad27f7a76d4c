"""From the checked section about the audit record to its frozen settings."""

from pathlib import Path as FilePath

from broker.config.audit_seal_section import VerifySection
from broker.config.building_alerts import build_alerts
from broker.config.building_sinks import build_sinks
from broker.config.findings import Scene
from broker.config.review_sections import ReviewOidcSection
from broker.config.settings import (
    AuditSettings,
    PeopleSettings,
    ReviewOidcSettings,
    ReviewSettings,
    SealSettings,
    TimeStampSettings,
    VerifySettings,
)


def build_audit(scene: Scene, directory: FilePath) -> AuditSettings:
    """The settings of a section in which the checks found nothing."""
    section = scene.file.audit
    return AuditSettings(
        directory=directory,
        segment_size=section.segment_size,
        write_timeout=section.write_timeout,
        review=_review(scene),
        sinks=build_sinks(scene),
        alerts=build_alerts(section.alerts),
        seal=SealSettings(
            every=section.seal.every,
            timestamp_every=section.seal.timestamp_every,
            time_stamps=_time_stamps(scene),
        ),
        verify=_verify(section.verify),
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


def _verify(section: VerifySection) -> VerifySettings | None:
    return VerifySettings(section.every, section.within) if section.enabled else None


def _time_stamps(scene: Scene) -> TimeStampSettings | None:
    seal = scene.file.audit.seal
    if seal.timestamp_url is None or seal.timestamp_ca_file is None:
        return None
    at = ("audit", "seal", "timestamp_ca_file")
    ca_file = scene.places.resolve(at, seal.timestamp_ca_file)
    return TimeStampSettings(seal.timestamp_url, ca_file)


def _review(scene: Scene) -> ReviewSettings | None:
    section = scene.file.audit.review
    if section is None:
        return None
    return ReviewSettings(
        url=(section.url or f"http://{scene.file.listen.admin}").removesuffix("/"),
        session_lifetime=section.session_lifetime,
        idle_timeout=section.idle_timeout,
        oidc=None if section.oidc is None else _oidc(scene, section.oidc),
    )


def _oidc(scene: Scene, section: ReviewOidcSection) -> ReviewOidcSettings:
    secret = section.client_secret_file
    path = ("audit", "review", "oidc", "client_secret_file")
    return ReviewOidcSettings(
        issuer=section.issuer,
        client_id=section.client_id,
        client_secret_file=None if secret is None else scene.places.resolve(path, secret),
        algorithms=tuple(section.algorithms),
        scopes=tuple(section.scopes),
        hosts=frozenset(section.hosts),
        subjects=frozenset(section.subjects),
        claim=section.claim,
        values=frozenset(section.values),
        name_claim=section.name_claim,
    )
