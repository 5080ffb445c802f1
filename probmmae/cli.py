"""The command line: each verb reads, calls one function of the package, and says what it did.

Answers go to stdout and files, progress and errors to stderr. Bad input is one line and exit code
2.
"""

import sys
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from probmmae.galaxy import Galaxy

app = typer.Typer(
    help="Posterior spectra and calibrated redshifts of galaxies from whatever was observed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Files = Annotated[
    list[Path],
    typer.Argument(help="Files, or folders that hold a dataset. Several cutouts are one galaxy."),
]
Reading = Annotated[
    list[str] | None,
    typer.Option(
        "--read", metavar="NAME=VALUE", help="Option of the file format, such as survey=sdss."
    ),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder of a trained model; without it the shipped one.")
]
Repair = Annotated[
    bool, typer.Option("--repair/--no-repair", help="Apply the repair that the model keeps.")
]


@app.command()
def info(
    files: Files,
    read: Reading = None,
    most: Annotated[int, typer.Option("--most", help="Galaxies to describe.", min=1)] = 3,
) -> None:
    """Say what files hold: format, galaxies, measurements and units."""
    with _one_line_errors():
        from probmmae.formats import FORMATS, recognise

        galaxies = _galaxies(files, read)
        for path in files:
            kind = "dataset (Parquet shards)" if path.is_dir() else None
            typer.echo(f"{path}: {kind or FORMATS[recognise(path)].DESCRIPTION}")
        count = 0
        for count, galaxy in enumerate(galaxies, start=1):
            if count <= most:
                typer.echo(galaxy.describe())
        typer.echo(f"galaxies: {count}" + (f", {most} of them described" if count > most else ""))


@app.command()
def convert(
    files: Files,
    out: Annotated[Path, typer.Option(help="Folder for the dataset.")],
    read: Reading = None,
) -> None:
    """Turn files into a dataset on disk that training streams from."""
    with _one_line_errors(), _progress() as bar:
        from probmmae.dataset import write_shards

        read_in = bar.track(_galaxies(files, read), total=_total(files), description="reading")
        dataset = write_shards(read_in, out)
    typer.echo(f"{len(dataset)} galaxies in {out}.")


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the dataset.")],
    n: Annotated[int, typer.Option("--n", help="Number of galaxies.", min=1)] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same galaxies.")] = 0,
    spectra: Annotated[int, typer.Option(help="Apertures per galaxy.", min=1)] = 2,
    workers: Annotated[int, typer.Option(help="Processes that simulate.", min=0)] = 2,
) -> None:
    """Simulate galaxies into a dataset on disk: images, photometry, spectra, redshifts."""
    with _one_line_errors(), _progress() as bar:
        from probmmae.dataset import write_shards
        from probmmae.simulated import simulated_galaxies

        made = simulated_galaxies(n, seed, spectra=spectra, workers=workers)
        dataset = write_shards(bar.track(made, total=n, description="simulating"), out)
    typer.echo(
        f"{len(dataset)} galaxies of seed {seed} in {out}: grizy images and photometry "
        f"(nanomaggies), {spectra} spectra each (1e-17 erg/s/cm2/Angstrom), redshifts."
    )


@app.command()
def train(
    *,
    recipe: Annotated[Path, typer.Argument(help="TOML file, or the name of a shipped recipe.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoint and metrics.")],
    data: Annotated[
        Path | None, typer.Option(help="Table that a recipe of photometry alone learns from.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on where a run in this folder stopped.")] = True,
) -> None:
    """Train a model by a recipe; a run that was stopped goes on from its last state.

    A recipe with a table `catalogue` trains redshifts from photometry alone, in minutes.
    """
    with _one_line_errors(), _progress("{task.fields[terms]}") as bar:
        from probmmae.config import parse_recipe, read_toml
        from probmmae.events import event_writer
        from probmmae.photometric.recipe import is_photometric
        from probmmae.train import train as fit

        shipped = Path(__file__).parent / "recipes" / f"{recipe.name}.toml"
        path = shipped if shipped.is_file() and not recipe.exists() else recipe
        content = read_toml(path)
        if is_photometric(content):
            typer.echo(_train_photometric(content, path, data, out, bar))
            return
        if data is not None:
            raise ValueError(
                f"Expected --data with a recipe of photometry alone; {path} is another. It says "
                "itself what it is trained on."
            )
        chosen = parse_recipe(content, str(path))
        out.mkdir(parents=True, exist_ok=True)
        task = bar.add_task("training", total=chosen.training.steps, terms="")
        with event_writer(out) as record:

            def watch(step: int, terms: dict[str, float]) -> None:
                record(step, terms)
                said = "  ".join(f"{name} {value:.3g}" for name, value in terms.items())
                bar.update(task, completed=step, terms=said)

            fit(chosen, out, resume=resume, watch=watch)
    typer.echo(f"Trained for {chosen.training.steps} steps; the model is in {out}.")


@app.command()
def photoz(
    files: Files,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="qp ensemble (HDF5) to write.")],
    read: Reading = None,
    checkpoint: Checkpoint = None,
    z_max: Annotated[float, typer.Option(help="Upper end of the redshift grid.")] = 1.6,
    z_step: Annotated[float, typer.Option(help="Step of the redshift grid.")] = 0.002,
    batch: Annotated[int, typer.Option(help="Galaxies in memory.", min=1)] = 64,
    repair: Repair = True,
) -> None:
    """Redshift densities p(z | everything but the redshift) of many galaxies, as a qp ensemble.

    A model of photometry alone reads tables by the columns it was trained on, unless told others.
    """
    with _one_line_errors(), _progress() as bar:
        _apart(output, files)
        from probmmae.inference.catalog import photoz as run
        from probmmae.loading import load
        from probmmae.photometric.answers import PhotometricModel

        model = load(checkpoint)
        galaxies: Iterable[Galaxy] = (
            model.galaxies(files)
            if isinstance(model, PhotometricModel) and not read
            else _galaxies(files, read)
        )
        task = bar.add_task("redshifts", total=_total(files))
        used = run(
            model, galaxies, output, z_max=z_max, z_step=z_step, batch_size=batch,
            repair=repair,
            watch=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
    typer.echo(f"{used.describe()}; model: {checkpoint or 'shipped'}")
    typer.echo(
        f"{output}: p(z) per unit redshift on 0 to {z_max:g} in steps of {z_step:g}; "
        "ancil: id, z_true, quantiles (dimensionless), repair"
        f"{', unlike_training' if isinstance(model, PhotometricModel) else ''}."
    )


@app.command()
def spectrum(
    *,
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="ArviZ netCDF to write.")],
    at: Annotated[
        list[str] | None,
        typer.Option(help="Offset east,north of the aperture, arcsec; may be repeated."),
    ] = None,
    diameter: Annotated[float, typer.Option(help="Of the aperture, arcsec.")] = 1.5,
    seeing: Annotated[float, typer.Option(help="FWHM in front of it, arcsec.")] = 1.0,
    wavelength: Annotated[
        str, typer.Option(metavar="FIRST:LAST:STEP", help="Observed, vacuum, Angstrom.")
    ] = "3600:9800:1.5",
    resolution: Annotated[float, typer.Option(help="R = wavelength / FWHM.")] = 2000.0,
    draws: Annotated[int, typer.Option(help="Draws per galaxy.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    use_redshift: Annotated[
        bool, typer.Option(help="Take a redshift that the file holds as known.")
    ] = True,
    read: Reading = None,
    checkpoint: Checkpoint = None,
    repair: Repair = True,
    plot: Annotated[
        bool, typer.Option(help="Draw the first galaxies into a PNG beside it.")
    ] = True,
) -> None:
    """Posterior spectra through apertures anywhere on the galaxies, as ArviZ netCDF."""
    with _one_line_errors(), _progress() as bar:
        _apart(output, files)
        from astropy import units as u

        from probmmae.galaxy import Aperture
        from probmmae.inference.catalog import spectra

        apertures = [
            Aperture.in_batch_units(*_numbers(one, ",", 2, "--at EAST,NORTH"), diameter=diameter,
                                    seeing=seeing)
            for one in at or ["0,0"]
        ]  # fmt: skip
        model, galaxies = _model(checkpoint), _galaxies(files, read)
        task = bar.add_task("spectra", total=_total(files))
        used, kept = spectra(
            model, galaxies, output, wavelength=_grid(wavelength) * u.AA, apertures=apertures,
            resolution=resolution, draws=draws, seed=seed, use_redshift=use_redshift, keep=6,
            repair=repair,
            watch=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
        if plot:
            from probmmae.inference.figures import save, spectra_figure

            picture = output.with_suffix(".png")
            save(spectra_figure(kept), picture)
    typer.echo(f"{used.describe()}; model: {checkpoint or 'shipped'}")
    typer.echo(
        f"{output}: {draws} draws of the flux density, 1e-17 erg/s/cm2/Angstrom, at observed "
        f"vacuum wavelengths in Angstrom, R = {resolution:g}, through {diameter:g} arcsec."
    )
    if plot:
        typer.echo(f"{picture}: the first {len(kept)}.")


@app.command()
def cube(
    *,
    file: Annotated[Path, typer.Argument(help="A file that holds one galaxy.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="FITS file to write.")],
    fibres: Annotated[
        int | None,
        typer.Option(
            help="Fibres of the MaNGA bundle to cover: 19, 37, 61, 91 or, as without, 127."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Spaxels a side of a square grid instead.", min=1)
    ] = None,
    side: Annotated[float, typer.Option(help="Of a spaxel, arcsec.")] = 0.5,
    psf: Annotated[float, typer.Option(help="FWHM of the point-spread function, arcsec.")] = 2.5,
    resolution: Annotated[float, typer.Option(help="R = wavelength / FWHM.")] = 2000.0,
    draws: Annotated[int, typer.Option(help="Draws of the cube.", min=2)] = 100,
    keep: Annotated[int, typer.Option(help="Draws that are written whole.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    use_redshift: Annotated[
        bool, typer.Option(help="Take a redshift that the file holds as known.")
    ] = True,
    read: Reading = None,
    checkpoint: Checkpoint = None,
    plot: Annotated[bool, typer.Option(help="Draw maps and spectra into a PNG beside it.")] = True,
) -> None:
    """Posterior IFU cube of a galaxy, with maps of its lines, as MaNGA-like FITS."""
    with _one_line_errors(), _progress() as bar:
        _apart(output, [file])
        if not output.name.endswith((".fits", ".fits.gz")):
            raise ValueError(f"Expected a name that ends with .fits or .fits.gz; got {output}.")
        if size and fibres:
            raise ValueError(
                f"Expected --size or --fibres; got both, {size} and {fibres}. A grid or a bundle."
            )
        from astropy import units as u

        from probmmae import spaxels
        from probmmae.inference.cube import cube as drawn
        from probmmae.inference.cube_fits import write_cube

        sizes = {"side": side * u.arcsec, "psf_fwhm": psf * u.arcsec}
        where = spaxels.square(size, **sizes) if size else spaxels.hexagon(fibres or 127, **sizes)
        galaxies = list(_galaxies([file], read))
        if len(galaxies) != 1:
            raise ValueError(f"Expected one galaxy in {file}; got {len(galaxies)}. Name its file.")
        model = _model(checkpoint)
        posterior = model.condition(galaxies[0], draws=draws, seed=seed, use_redshift=use_redshift)
        task = bar.add_task("spaxels", total=len(where))
        answer = drawn(
            posterior, where, resolution=resolution, keep=keep,
            watch=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
        write_cube(answer, output)
        if plot:
            from probmmae.inference.cube_figures import cube_figure
            from probmmae.inference.figures import save

            save(cube_figure(answer, marked=(len(where) // 2,)), output.with_suffix(".png"))
    typer.echo(
        f"{output}: {len(where)} spaxels of {side:g} arcsec behind {psf:g} arcsec, {draws} draws; "
        "FLUX is their mean, 1e-17 erg/s/cm2/Angstrom/spaxel, beside it quantiles and line maps."
    )
    typer.echo(
        f"Of sums and gradients: {answer.jointly}. "
        f"{int(answer.extrapolated.sum())} spaxels are marked as extrapolated."
    )


@app.command()
def refine(
    *,
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="ArviZ netCDF to write.")],
    wavelength: Annotated[
        str, typer.Option(metavar="FIRST:LAST:STEP", help="Observed, vacuum, Angstrom.")
    ] = "3600:9800:1.5",
    draws: Annotated[int, typer.Option(help="Draws per galaxy.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    use_redshift: Annotated[
        bool, typer.Option(help="Take a redshift that the file holds as known.")
    ] = True,
    read: Reading = None,
    checkpoint: Checkpoint = None,
) -> None:
    """Exact posteriors of galaxies with spectra: where the network's answer fails, by NUTS.

    The network reads images and photometry; spectra are weighed by the model's exact density. The
    Pareto k of the weights says for which galaxies they are enough; the others are sampled.
    """
    with _one_line_errors(), _progress() as bar:
        _apart(output, files)
        from astropy import units as u

        from probmmae.inference.exact import Exact
        from probmmae.inference.importance import TRUSTED
        from probmmae.inference.refined import refine as run

        task = bar.add_task("galaxies", total=_total(files))
        done: list[str] = []

        def watch(one: Exact) -> None:
            done.append(one.method)
            bar.update(task, completed=len(done))

        model, grid = _model(checkpoint), _grid(wavelength) * u.AA
        left_out = run(
            model, _galaxies(files, read), output, wavelength=grid, draws=draws, seed=seed,
            use_redshift=use_redshift, watch=watch,
        )  # fmt: skip
    sampled = done.count("nuts")
    typer.echo(
        f"{len(done)} galaxies: {len(done) - sampled} by importance weights (Pareto k below "
        f"{TRUSTED}), {sampled} by NUTS; without spectra, or with nothing else, and so left out: "
        f"{left_out}; model: {checkpoint or 'shipped'}"
    )
    typer.echo(
        f"{output}: {draws} draws of redshift and flux density (1e-17 erg/s/cm2/Angstrom) at each "
        "galaxy's first aperture; group refinement: how each was inferred."
    )


@app.command()
def repair(
    checkpoint: Annotated[str, typer.Argument(help="Folder of a trained model, or 'shipped'.")],
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder of a dataset, whose part 'recalibrate' is used; default: "
                            "simulated galaxies."),
    ] = None,
    *,
    galaxies: Annotated[int, typer.Option(help="How many are simulated.", min=64)] = 8192,
    seed: Annotated[int, typer.Option(help="Of the simulation; not one of training.")] = 3,
) -> None:  # fmt: skip
    """Recalibrate a model on galaxies that it never saw, and keep the repair beside its weights.

    From then on redshift densities, and spectra at known redshifts, are repaired wherever the
    model is used, and every output says so. A dataset repairs redshifts alone: spectra need a
    noise-free truth, which only simulated galaxies have.
    """
    with _one_line_errors(), _progress() as bar:
        from probmmae.calibration import fit_repair as fit
        from probmmae.checkpoint import SHIPPED, load_model, read
        from probmmae.dataset import Dataset
        from probmmae.inference.repair import write_repair

        folder = SHIPPED if checkpoint == "shipped" else Path(checkpoint)
        stored, network = read(folder), load_model(folder)
        if data is None:
            fit.check_seed(stored, seed)
            held, total = fit.simulated_galaxies(galaxies, seed), galaxies
            source = f"simulated, seed {seed}"
        else:
            dataset = Dataset(data)
            held, total = fit.stored_galaxies(dataset), dataset.count("recalibrate")
            source = f"part recalibrate of {data.name}"
        task = bar.add_task("galaxies", total=total)
        found = fit.fit_repair(
            network, held, weights=stored.info["sha256"], source=source,
            watch=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
        path = write_repair(folder, found)
    for name, said in found.describe().items():
        typer.echo(f"{name}: {said}")
    typer.echo(f"{path}: applied from now on; --no-repair and repair=False do without.")


@app.command()
def calibrate(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Folder of a trained model, or 'shipped'.")
    ] = None,
    data: Annotated[
        Path | None, typer.Argument(help="Folder of a dataset; its held-out parts are used.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML report to write.")],
    draws: Annotated[
        Path | None, typer.Option(help="Answers of any model instead: an .npz archive.")
    ] = None,
    manga: Annotated[
        list[Path] | None,
        typer.Option(help="LOGCUBE or MAPS of MaNGA instead, or a folder; may be repeated."),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="FITS cutouts to predict its cubes from, not its own images."),
    ] = None,
) -> None:
    """Is a posterior right? One HTML report, and the same as JSON beside it.

    With --manga cubes are predicted from the files' own images, or from --images, and held
    against what the files hold; without CHECKPOINT by the shipped model.
    A model that keeps a repair is judged without it and with it; for others one is fitted.
    The keys of an archive: z_true with z_draws (draw, galaxy), or z_pdf (galaxy, grid) and z_grid;
    spectrum_true (galaxy, pixel) with spectrum_draws (draw, galaxy, pixel) and rest_wavelength
    (galaxy, pixel); feature_NAME_true and feature_NAME_draws; condition_NAME (galaxy,), what was
    observed; split (galaxy,), "recalibrate" to fit a repair and "report". Not all are needed.
    """
    with _one_line_errors(), _progress("{task.fields[doing]}") as bar:
        _apart(output, [one for one in (*(manga or []), *(images or []), draws, data) if one])
        if output.suffix == ".json":
            raise ValueError(
                f"Expected a name for the HTML report; got {output}. Its JSON is written beside."
            )
        if (manga or images) and (data or draws):
            raise ValueError(
                "Expected --manga, or a dataset, or --draws; got --manga with "
                f"{data or draws}. Give one."
            )
        if manga or images:
            typer.echo(_calibrate_manga(checkpoint, manga or [], images or [], output, bar))
            return
        from probmmae.calibration.provenance import described
        from probmmae.calibration.report import make_report
        from probmmae.calibration.report_html import write_report

        if (draws is None) == (checkpoint is None) or (checkpoint is None) != (data is None):
            raise ValueError(
                "Expected CHECKPOINT and DATA, or --draws; got "
                f"{'both' if draws and checkpoint else 'neither'}. Give one or the other."
            )
        kept, stored = None, None
        if draws is not None:
            from probmmae.calibration.draws_file import read_draws

            task, jobs = bar.add_task("calibration", total=None, doing=""), read_draws(draws)
        else:
            from probmmae.calibration.held_out import answers
            from probmmae.dataset import Dataset

            dataset = Dataset(data or Path())
            task = bar.add_task("calibration", total=None, doing="answers")
            model = _model(None if checkpoint == "shipped" else Path(checkpoint or ""))
            kept = model.repair
            jobs, stored = answers(
                model, dataset, watch=lambda done: bar.update(task, completed=done)
            )
        made = described(
            jobs, checkpoint=checkpoint, data=data, draws=draws, output=output, repair=kept
        )
        report = make_report(
            jobs, made, stored=stored, watch=lambda said: bar.update(task, doing=said)
        )
        beside = write_report(report, output)
    for job in report.jobs:
        for sentence in job.sentences:
            typer.echo(sentence)
    typer.echo(f"{output}: the evidence; {beside}: the same for machines.")


@app.command()
def demo(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Your own files, if you like.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="Folder with real galaxies; what is not there is left out.")
    ] = None,
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated galaxies.")] = 7,
) -> None:
    """Posterior spectra and redshift intervals of simulated and real galaxies, as pictures."""
    with _one_line_errors():
        from probmmae.demo import run

        run(_model(checkpoint), out, files=files or [], data=data, seed=seed, console=Console())


def _train_photometric(
    content: dict[str, Any], path: Path, data: Path | None, out: Path, bar: Progress
) -> str:
    """Train redshifts from photometry alone; what was done, in words."""
    from probmmae.photometric.recipe import parse_photometric
    from probmmae.photometric.training import passes_of
    from probmmae.photometric.training import train as fit

    chosen = parse_photometric(content, str(path))
    if data is None:
        raise ValueError(f"Expected the table that {path} learns from; got none. Give --data.")
    task = bar.add_task("passes", total=passes_of(chosen.fit), terms="")
    model = fit(chosen, data, out, watch=lambda done: bar.update(task, completed=done))
    return (
        f"Trained on {model.trained_on} galaxies of {data} with {len(model.bands.names)} "
        f"bands, {chosen.catalogue.held_out:.0%} held out; the model is in {out}."
    )


def _calibrate_manga(
    checkpoint: str | None, files: list[Path], images: list[Path], output: Path, bar: Progress
) -> str:
    """Hold predicted cubes against MaNGA's; what was written, in words."""
    from probmmae import __version__
    from probmmae.calibration.manga_chapter import chapter_files, judge_file
    from probmmae.calibration.manga_html import counted, write_chapter

    found = chapter_files(files)
    if images and len(found) > 1:
        raise ValueError(
            f"Expected one galaxy with --images; got {len(found)}. Name its LOGCUBE or MAPS file."
        )
    task = bar.add_task("galaxies", total=len(found), doing="")
    model, judged = _model(None if checkpoint in (None, "shipped") else Path(checkpoint)), []
    for path in found:
        bar.update(task, doing=path.name)
        judged.append(judge_file(model, path, images=images))
        bar.advance(task)
    made = {
        "files": ", ".join(path.name for path in found),
        "images": ", ".join(path.name for path in images) or "the files' own",
        "model": checkpoint or "shipped",
        "probmmae": __version__,
    }
    beside = write_chapter(judged, made, output)
    return f"{output}: {counted(len(judged))}; {beside}: the same for machines."


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What the user can mend is said in one line, and so is what a reader had to assume."""

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        typer.echo(f"note: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module="probmmae")
        warnings.showwarning = note
        try:
            yield
        except (ValueError, TypeError, OSError) as error:
            typer.echo("probmmae: " + " ".join(str(error).split()), err=True)
            raise typer.Exit(2) from error


def _progress(*columns: str) -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(), *columns,
        console=Console(stderr=True), transient=not sys.stderr.isatty(),
    )  # fmt: skip


def _apart(output: Path, files: list[Path]) -> None:
    """Refuse to write over what is read.

    Raises:
        ValueError: The output is one of the files, or a file of a folder that is read.
    """
    for file in files:
        if output.exists() and file.exists() and output.samefile(file):
            raise ValueError(
                f"Expected an output other than the input; got {output} as both. Name another "
                "file: nothing was written."
            )
        inside = file.is_dir() and output.resolve().is_relative_to(file.resolve())
        # A report in the folder is nothing that was read.
        if inside and output.exists() and output.suffix != ".html":
            raise ValueError(
                f"Expected an output that is no file of the folder {file}; got {output}. Name "
                "another file: nothing was written."
            )


def _model(checkpoint: Path | None) -> Any:
    from probmmae.inference.posterior import load

    return load(checkpoint)


def _galaxies(files: list[Path], read: list[str] | None) -> "Iterable[Galaxy]":
    """A stream of what datasets and files hold, in the order given."""
    from probmmae.dataset import Dataset
    from probmmae.formats import stream

    options = dict(_option(one) for one in read or [])
    folders = [Dataset(path) for path in files if path.is_dir()]
    plain = [path for path in files if not path.is_dir()]

    def every() -> "Iterator[Galaxy]":
        for folder in folders:
            yield from folder
        if plain:
            yield from stream(plain, **options)

    return every()


def _total(files: list[Path]) -> int | None:
    """How many galaxies there are, where that can be known without reading them."""
    from probmmae.dataset import Dataset

    if not all(path.is_dir() for path in files):
        return None
    return sum(len(Dataset(path)) for path in files)


def _option(text: str) -> tuple[str, Any]:
    """NAME=VALUE: a number, a word, a list with commas, or the tables of a TOML file."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"Expected --read NAME=VALUE; got {text!r}. Such as --read survey=sdss.")
    if value.endswith(".toml"):
        return name, _fixed(tomllib.loads(Path(value).read_text()))
    parts = [_value(part) for part in value.split(",")]
    return name, parts if len(parts) > 1 else parts[0]


def _fixed(value: Any) -> Any:
    """TOML with its arrays as tuples."""
    if isinstance(value, dict):
        return {name: _fixed(inner) for name, inner in value.items()}
    return tuple(map(_fixed, value)) if isinstance(value, list) else value


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _numbers(text: str, separator: str, count: int, what: str) -> list[float]:
    parts = text.split(separator)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ValueError(f"Expected {what}, {count} numbers; got {text!r}. Correct the option.")
    return numbers


def _grid(text: str) -> Any:
    import numpy as np

    first, last, step = _numbers(text, ":", 3, "--wavelength FIRST:LAST:STEP in Angstrom")
    if not (0 < first < last and 0 < step < last - first):
        raise ValueError(
            "Expected --wavelength FIRST:LAST:STEP in Angstrom, increasing; "
            f"got {text!r}. Such as 3600:9800:1.5."
        )
    return np.arange(first, last + 0.5 * step, step)


if __name__ == "__main__":
    app()
