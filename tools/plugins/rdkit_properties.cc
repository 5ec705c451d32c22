/* rdkit_properties.cc -- a plug-in for kac: properties of molecules by RDKit, those of
 * tools/workers/rdkit_properties.py, with the same numbers and in less time.
 *
 * The options name them in the order of the outputs, with blanks or commas between them: qed, sa,
 * ease, logp, weight, valid (docs/molecules.md); without options qed sa logp weight valid.
 * `make build/release/rdkit_properties.so` builds it where RDKit's headers are. */
#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <GraphMol/Descriptors/Crippen.h>
#include <GraphMol/Descriptors/MolDescriptors.h>
#include <GraphMol/MolOps.h>
#include <GraphMol/RDKitBase.h>
#include <GraphMol/SmilesParse/SmilesParse.h>
#include <RDGeneral/RDLog.h>

#include "kac_plugin.h"
#include "rdkit_match.h"
#include "rdkit_qed.h"
#include "rdkit_sa.h"

namespace
{
enum property { QED, SA, EASE, LOGP, WEIGHT, VALID, PROPERTIES };
const char *const names[PROPERTIES] = {"qed", "sa", "ease", "logp", "weight", "valid"};

/* The octanol-water partition coefficient by Wildman and Crippen's types of atoms (1999), which
 * RDKit has: an atom is of the first type whose pattern begins with it. */
class lipophilicity
{
  public:
    lipophilicity() : types_(2 * match::ELEMENTS)
    {
        for (const auto &type : *RDKit::Descriptors::CrippenParamCollection::getParams()) {
            patterns_.emplace_back(std::make_shared<const RDKit::ROMol>(*type.dp_pattern),
                                   match::pattern::from::first);
            logp_.push_back(type.logp);
        }
        for (std::size_t kind = 0; kind < types_.size(); kind++)
            for (std::size_t k = 0; k < patterns_.size(); k++)
                if (patterns_[k].starts()[kind]) types_[kind].push_back(k);
    }

    double score(const RDKit::ROMol &molecule) const
    {
        const std::unique_ptr<RDKit::ROMol> full(RDKit::MolOps::addHs(molecule));
        match::target t(*full);
        double sum = 0;
        for (int i = 0; i < t.size(); i++)
            sum += of_atom(t, i);
        return sum;
    }

  private:
    std::vector<match::pattern> patterns_;
    std::vector<double> logp_;
    std::vector<std::vector<std::size_t>> types_; /* that can be, by the kind of an atom */

    double of_atom(match::target &t, int i) const
    {
        for (std::size_t k : types_[t.kind[static_cast<std::size_t>(i)]])
            if (patterns_[k].occurs_at(t, i)) return logp_[k];
        return 0;
    }
};

/* What all molecules are judged by; it does not change. */
struct scorers {
    qed::scorer drugs;
    sa::fragments fragments;
    lipophilicity oil;
};

struct handle {
    std::vector<property> columns;
    scorers with;

    bool has(property p) const
    {
        return std::find(columns.begin(), columns.end(), p) != columns.end();
    }
};

thread_local std::string latest; /* error */

std::unique_ptr<RDKit::ROMol> read(const char *smiles)
{
    try {
        std::unique_ptr<RDKit::ROMol> molecule(RDKit::SmilesToMol(smiles));
        if (molecule != nullptr && molecule->getNumAtoms() > 0) return molecule;
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception &) { /* what RDKit cannot read is no molecule */
    }
    return nullptr;
}

bool has_hydrogen_atoms(const RDKit::ROMol &molecule)
{
    for (const RDKit::Atom *atom : molecule.atoms())
        if (atom->getAtomicNum() == 1) return true;
    return false;
}

double drug_likeness(const handle &h, const RDKit::ROMol &molecule, double logp)
{
    if (!has_hydrogen_atoms(molecule)) {
        match::target t(molecule);
        return h.with.drugs.score(molecule, t, logp);
    }
    const std::unique_ptr<RDKit::ROMol> heavy(RDKit::MolOps::removeHs(molecule));
    match::target t(*heavy);
    return h.with.drugs.score(*heavy, t, h.with.oil.score(*heavy));
}

/* All that the columns ask for, by property; what the molecule has not is NaN. */
void judge(const handle &h, const char *smiles, double (&found)[PROPERTIES])
{
    std::fill(found, found + PROPERTIES, std::numeric_limits<double>::quiet_NaN());
    const std::unique_ptr<RDKit::ROMol> molecule = read(smiles);
    found[VALID] = molecule != nullptr;
    if (molecule == nullptr) return;
    if (h.has(WEIGHT)) found[WEIGHT] = RDKit::Descriptors::calcAMW(*molecule);
    if (h.has(LOGP) || h.has(QED)) found[LOGP] = h.with.oil.score(*molecule);
    if (h.has(QED)) found[QED] = drug_likeness(h, *molecule, found[LOGP]);
    if (h.has(SA) || h.has(EASE)) found[SA] = sa::score(*molecule, h.with.fragments);
    found[EASE] = (10 - found[SA]) / 9;
}

property property_of(const std::string &name)
{
    for (int p = 0; p < PROPERTIES; p++)
        if (name == names[p]) return static_cast<property>(p);
    throw std::runtime_error("no property " + name +
                             "; there are qed, sa, ease, logp, weight, valid");
}

std::vector<property> read_options(const std::string &options)
{
    const char *const blanks = " ,\t";
    std::vector<property> columns;
    for (std::size_t at = options.find_first_not_of(blanks), end = 0; at != std::string::npos;
         at = options.find_first_not_of(blanks, end)) {
        end = std::min(options.find_first_of(blanks, at), options.size());
        columns.push_back(property_of(options.substr(at, end - at)));
    }
    if (columns.empty()) columns = {QED, SA, LOGP, WEIGHT, VALID};
    return columns;
}

int fail(const char *why)
{
    latest = why;
    return 1;
}

int open(const kac_plugin_use *use, kac_plugin_shape *shape, void **out)
{
    if (use->role != KAC_PLUGIN_REWARD || !use->molecules)
        return fail("it is a reward of molecules (process.kind graph, with process.atoms)");
    try {
        boost::logging::disable_logs("rdApp.*");
        auto h = std::make_unique<handle>();
        h->columns = read_options(use->options);
        shape->outputs = static_cast<int32_t>(h->columns.size());
        shape->reads_text = 1;
        *out = h.release();
    } catch (const std::exception &error) {
        return fail(error.what());
    }
    return 0;
}

void answer(const handle &h, const char *smiles, float *out)
{
    double found[PROPERTIES];
    judge(h, smiles, found);
    for (property p : h.columns)
        *out++ = static_cast<float>(found[p]);
}

/* An exception may not leave a thread of OpenMP's: one of them is told afterwards. */
int evaluate(void *self, const kac_plugin_rows *rows)
{
    const handle &h = *static_cast<const handle *>(self);
    std::string wrong;
#pragma omp parallel for schedule(dynamic)
    for (int32_t i = 0; i < rows->count; i++) {
        try {
            answer(h, rows->text + i * rows->text_stride,
                   rows->out + static_cast<std::size_t>(i) * h.columns.size());
        } catch (const std::exception &error) {
#pragma omp critical
            wrong = error.what();
        }
    }
    return wrong.empty() ? 0 : fail(wrong.c_str());
}

const char *error(void *)
{
    return latest.c_str();
}

void close(void *self)
{
    delete static_cast<handle *>(self);
}
} /* namespace */

const kac_plugin *kac_plugin_v1(void)
{
    static const kac_plugin plugin = {
        KAC_PLUGIN_VERSION, open, evaluate, nullptr, error, close};
    return &plugin;
}
