/* run_vjp.c -- vector-Jacobian products on four threads in a plain program, for ThreadSanitizer,
 * under which Criterion does not start.  Prints a value of each; any failure is exit 1. */
#ifdef _OPENMP
#include <omp.h>
#endif

#include "device.h"
#include "network.h"

enum { ROWS = 9, LENGTH = 80, STATES = 4, OUT = LENGTH * STATES, IN = LENGTH * (STATES + 1) };

static kac_status differentiate(kac_device *dev, const char *model, kac_role role)
{
    static uint8_t tokens[ROWS][LENGTH];
    static float cotangent[ROWS * OUT];
    static float grad[ROWS * IN];
    kac_network *net = NULL;
    for (int i = 0; i < ROWS * LENGTH; i++)
        tokens[i / LENGTH][i % LENGTH] = (uint8_t)(i * i % 7 % (STATES + 1));
    for (int i = 0; i < ROWS * OUT; i++)
        cotangent[i] = (float)(i % 5 - 2);
    KAC_TRY(kac_network_open(dev, model, role, &net));
    const kac_query q = {
        .tokens = tokens[0], .stride = LENGTH, .length = LENGTH, .capacity = ROWS};
    kac_status status = kac_network_vjp(net, &q, cotangent, grad);
    if (status == KAC_OK) printf("%a  %s\n", (double)grad[0], model);
    kac_network_close(net);
    return status;
}

int main(void)
{
    kac_device *dev = NULL;
#ifdef _OPENMP
    omp_set_num_threads(4);
#endif
    kac_status status = kac_device_open("cpu", -1, &dev);
    if (status == KAC_OK)
        status = differentiate(dev, "models/promoter_denoiser.safetensors", KAC_ROLE_DENOISER);
    if (status == KAC_OK)
        status = differentiate(dev, "models/promoter_expression.safetensors", KAC_ROLE_REWARD);
    if (status != KAC_OK) fprintf(stderr, "run_vjp: %s\n", kac_last_error());
    kac_device_close(dev);
    return status == KAC_OK ? 0 : 1;
}
